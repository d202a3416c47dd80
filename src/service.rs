//! The RPCs: each one validates, asks a listing, and converts. Errors become a status here, once.

mod answer;
mod call_context;
mod compress;
mod describe;
mod provenance;
mod status;
mod stream;
mod targets;
mod validate;

use std::sync::Arc;

use http::{Request, Response};
use serde::{Deserialize, Serialize};

use self::{
    call_context::CallContext, compress::Compression, describe::describe, stream::stream, targets::list_targets,
};
pub use self::{compress::Encoding, stream::page_head};
pub use crate::grpc::{SERVICE_NAME, TARGET_SERVICE_NAME};
use crate::{
    access::{Method, Policy},
    grpc::{Body, Failure, RequestBody, message},
    listing::Listings,
    model::TargetName,
    setting::{InvalidSetting, positive},
};

/// What requests and answers may be; the `[service]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The largest request, in bytes, before and after decompression.
    pub max_request_size: usize,
    /// The most filters in one request.
    pub max_filters: usize,
    /// What answers may be compressed with, the best first; none, they are not.
    pub compression: Vec<Encoding>,
    /// The size of the smallest answer that is compressed, in bytes.
    pub compress_from: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_request_size: 1 << 20, max_filters: 100, compression: Vec::new(), compress_from: 4096 }
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that every call would be refused by.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let Self { max_request_size, max_filters: _, compression: _, compress_from: _ } = self;
        positive("max_request_size", *max_request_size)
    }
}

/// What calls are answered from, and by which rules.
#[derive(Debug)]
pub struct Serving {
    /// The listings, in front of all targets.
    pub listings: Listings,
    /// The target that is asked where none is named.
    pub default_target: Option<TargetName>,
    /// Who may ask what.
    pub policy: Policy,
    /// What requests may be.
    pub config: Config,
}

/// The services of `ssm_gateway.v1` over listings. Not generated: a generated server encodes messages, and most answers here are
/// ready bytes.
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
        let compression = Compression::of(&serving.config, request.headers());
        let call = CallContext::new(serving, request.extensions(), method, compression)?;
        match method {
            Method::DescribeInstanceInformation => describe(serving, &call, message(request, max).await?).await,
            Method::StreamInstanceInformation => stream(serving, &call, message(request, max).await?).await,
            Method::ListTargets => Ok(list_targets(serving, &call, message(request, max).await?)),
        }
    }
}
