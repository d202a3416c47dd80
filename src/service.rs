//! The RPCs: each one authorises the call, validates the request, reads a listing and writes the answer. Each error
//! becomes a `Failure` here; the edge writes it.

mod answer;
mod call_context;
mod compress;
mod config;
mod describe;
mod provenance;
mod render;
mod serving;
mod status;
mod stream;
mod targets;
mod validate;

use std::sync::Arc;

use http::{Request, Response};

use self::{
    call_context::CallContext, compress::Compression, describe::describe, stream::stream, targets::list_targets,
};
pub use self::{compress::Encoding, config::Config, render::Renderer, serving::Serving};
pub use crate::grpc::{SERVICE_NAME, TARGET_SERVICE_NAME};
use crate::{
    access::Method,
    grpc::{Body, Failure, RequestBody, message},
};

/// The services of `ssm_gateway.v1` over listings. Not generated: a generated server encodes messages, and most answers
/// here are ready bytes.
#[derive(Debug, Clone)]
pub struct Service(Arc<Serving>);

impl Service {
    /// Builds the services.
    #[must_use]
    pub fn new(serving: Arc<Serving>) -> Self {
        Self(serving)
    }

    /// Answers a call of this method.
    ///
    /// # Errors
    /// [`Failure`], if the call fails before the first message of its answer.
    pub async fn answer(&self, method: Method, request: Request<RequestBody>) -> Result<Response<Body>, Failure> {
        let serving = &*self.0;
        let max = serving.config.max_request_size;
        let compression = Compression::of(&serving.config.compression, serving.config.compress_from, request.headers());
        let call = CallContext::new(serving, request.extensions(), method, compression)?;
        match method {
            Method::DescribeInstanceInformation => describe(serving, &call, message(request, max).await?).await,
            Method::StreamInstanceInformation => stream(serving, &call, message(request, max).await?).await,
            Method::ListTargets => Ok(list_targets(serving, &call, message(request, max).await?)),
        }
    }
}
