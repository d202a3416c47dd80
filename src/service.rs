//! The RPCs: each one validates, asks a listing, and converts. Errors become a status here, once.

mod answer;
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
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};

use self::{describe::describe, request::message, stream::stream};
pub use self::{stream::page_head, targets::Targets};
use crate::{listing::Listings, model::TargetName};

/// The full name of the service.
pub const SERVICE_NAME: &str = "ssm_gateway.v1.InstanceInformationService";

/// `ssm_gateway.v1.InstanceInformationService` over listings. Not generated: the generated server encodes messages, and
/// answers are ready bytes.
#[derive(Debug, Clone)]
pub struct Service {
    listings: Listings,
    default_target: Option<TargetName>,
}

impl Service {
    /// Builds the service, ready to be mounted.
    #[must_use]
    pub fn new(listings: Listings, default_target: Option<TargetName>) -> Self {
        Self { listings, default_target }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let default_target = self.default_target.as_ref();
        match request.uri().path() {
            "/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation" => {
                describe(&self.listings, default_target, message(request).await?).await
            }
            "/ssm_gateway.v1.InstanceInformationService/StreamInstanceInformation" => {
                stream(&self.listings, default_target, message(request).await?).await
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
