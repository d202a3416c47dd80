use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::Request;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    clock,
    edge::{
        credential::{Credential, Expiry},
        identity::Authenticator,
    },
    grpc::{CallNotes, Failure, Route},
};

/// Puts the caller's principal into the request's extensions, and rejects a call without a valid credential. Health
/// needs none: what starts and stops the gateway has no credential. Nor does the answer that there is no such method,
/// by which AWS's load balancers see by default that a gateway is up (`/AWS.ALB/healthcheck`).
#[derive(Debug, Clone)]
pub struct AuthenticateLayer(pub Arc<Authenticator>);

/// The service of [`AuthenticateLayer`].
#[derive(Debug, Clone)]
pub struct Authenticate<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, authenticator: Arc::clone(&self.0) }
    }
}

impl<S, R> Service<Request<R>> for Authenticate<S>
where
    S: Service<Request<R>, Error = Failure>,
{
    type Response = S::Response;
    type Error = Failure;
    type Future = Either<S::Future, Ready<Result<S::Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        match request.extensions().get() {
            Some(Route::Method(_) | Route::Reflection | Route::ReflectionAlpha) => {}
            Some(Route::HealthCheck | Route::HealthWatch) => return Either::Left(self.inner.call(request)),
            None => return Either::Right(ready(Err(Failure::no_such_method()))),
        }
        let peer = request.extensions_mut().remove::<Credential>();
        match self.authenticator.authenticate(request.headers(), peer.as_ref()) {
            Ok(Credential { principal, expires }) => {
                if let Some(notes) = request.extensions().get::<CallNotes>() {
                    notes.note(|noted| noted.principal = Some(principal.clone()));
                }
                request.extensions_mut().insert(principal);
                let left = expires.map(|expires| expires.duration_since(clock::wall()).unwrap_or_default());
                if let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) {
                    request.extensions_mut().insert(Expiry(at));
                }
                Either::Left(self.inner.call(request))
            }
            Err(invalid) => Either::Right(ready(Err(invalid.into()))),
        }
    }
}
