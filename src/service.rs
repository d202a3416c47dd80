//! The RPCs: each one validates, asks a listing, and converts. Errors become a status here, once.

mod answer;
mod caller;
mod compress;
mod describe;
mod failure;
mod provenance;
mod request;
mod status;
mod stream;
mod targets;
mod validate;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{Extensions, Request, Response};
use serde::{Deserialize, Serialize};
use tonic::{Status, body::Body, server::NamedService};

use self::{caller::Caller, compress::Compression, describe::describe, request::message, stream::stream};
pub use self::{compress::Encoding, stream::page_head, targets::Targets};
use crate::{
    listing::Listings,
    model::{Method, Policy, TargetName},
};

/// The full name of the service.
pub const SERVICE_NAME: &str = "ssm_gateway.v1.InstanceInformationService";

/// The full name of the service that tells of targets.
pub const TARGET_SERVICE_NAME: &str = "ssm_gateway.v1.TargetService";

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

/// `ssm_gateway.v1.InstanceInformationService` over listings. Not generated: the generated server encodes messages, and
/// answers are ready bytes.
#[derive(Debug, Clone)]
pub struct Service(Arc<Serving>);

impl Service {
    /// Builds the service, ready to be mounted.
    #[must_use]
    pub fn new(serving: Arc<Serving>) -> Self {
        Self(serving)
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let serving = &*self.0;
        let max = serving.config.max_request_size;
        let compression = Compression::of(&serving.config, request.headers());
        let caller =
            |method, extensions: &Extensions| Caller::new(&serving.policy, extensions, method).taking(compression);
        match request.uri().path() {
            "/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation" => {
                let caller = caller(Method::DescribeInstanceInformation, request.extensions());
                describe(serving, &caller, message(request, max).await?).await
            }
            "/ssm_gateway.v1.InstanceInformationService/StreamInstanceInformation" => {
                let caller = caller(Method::StreamInstanceInformation, request.extensions());
                stream(serving, &caller, message(request, max).await?).await
            }
            _ => Err(Status::unimplemented("the service has no such method")),
        }
    }
}

impl NamedService for Service {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async { Ok(service.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}
