use std::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service};

use crate::grpc::Route;

/// Puts the route of a call into the extensions of its request, if the gateway has the method. The other layers, which
/// treat some methods differently, go by that.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteLayer;

/// The service of [`RouteLayer`].
#[derive(Debug, Clone)]
pub struct Routed<S> {
    inner: S,
}

impl<S> Layer<S> for RouteLayer {
    type Service = Routed<S>;

    fn layer(&self, inner: S) -> Routed<S> {
        Routed { inner }
    }
}

impl<S, R> Service<Request<R>> for Routed<S>
where
    S: Service<Request<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> S::Future {
        if let Some(route) = Route::of(request.uri().path()) {
            request.extensions_mut().insert(route);
        }
        self.inner.call(request)
    }
}
