use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use prost_reflect::{DescriptorError, DescriptorPool};
use tower::BoxError;

use crate::{
    config::Config,
    edge::{Health, Stages},
    grpc::{Body, Failure, RequestBody, Route, SERVICE_NAME, TARGET_SERVICE_NAME},
    proto,
    read::Listings,
    reflection::Reflection,
    service::{Service, Serving},
};

/// The services whose health is reported; the empty name stands for the whole server.
const SERVICES: &[&str] = &["", SERVICE_NAME, TARGET_SERVICE_NAME];

/// Dispatches a call to its method, without any layer.
#[derive(Debug, Clone)]
pub(super) struct Routes(Arc<Methods>);

#[derive(Debug)]
struct Methods {
    service: Service,
    health: Health,
    reflection: Reflection,
}

/// Returns the descriptors of every service, and of the details that errors carry.
fn descriptors() -> Result<DescriptorPool, DescriptorError> {
    proto::descriptors(&[
        proto::FILE_DESCRIPTOR_SET,
        tonic_types::pb::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ])
}

impl Routes {
    pub(super) fn new(config: &Config, listings: &Listings, stages: &Stages) -> Result<Self, DescriptorError> {
        let service = Service::new(Arc::new(Serving {
            listings: listings.clone(),
            default_target: config.default_target(),
            policy: config.policy(),
            config: config.service.clone(),
        }));
        let health = Health { services: SERVICES, stages: stages.clone() };
        let reflection = Reflection::new(descriptors()?, config.service.max_request_size);
        Ok(Self(Arc::new(Methods { service, health, reflection })))
    }
}

impl Methods {
    async fn answer(&self, request: Request<RequestBody>) -> Result<Response<Body>, Failure> {
        match request.extensions().get() {
            Some(&Route::Method(method)) => self.service.answer(method, request).await,
            Some(Route::HealthCheck) => self.health.check(request).await,
            Some(Route::HealthWatch) => self.health.watch(request).await,
            Some(Route::Reflection | Route::ReflectionAlpha) => self.reflection.answer(request),
            None => Err(Failure::no_such_method()),
        }
    }
}

impl<B> tower::Service<Request<B>> for Routes
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Response<Body>, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let methods = Arc::clone(&self.0);
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move { methods.answer(request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_that_is_described_is_served() {
        for service in descriptors().unwrap().services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert!(Route::of(&path).is_some(), "{path}");
            }
        }
    }
}
