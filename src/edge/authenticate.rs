use std::{
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::future::{Either, Ready, ready};
use http::Request;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    authenticator::Authenticator,
    credential::{Credential, Expiry, InvalidCredential},
};
use crate::grpc::{CallNotes, Failure, Reason, Route};

/// Puts the caller's principal into the request's extensions, and rejects a call without a valid credential. Health needs none: whoever
/// starts and stops the gateway proves nothing. Nor does the answer that there is no such method, by which AWS's load balancers see
/// by default that a gateway is up (`/AWS.ALB/healthcheck`).
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
        match Route::of(request.uri().path()) {
            Some(Route::Method(_) | Route::Reflection) => {}
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
                let left = expires.map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
                if let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) {
                    request.extensions_mut().insert(Expiry(at));
                }
                Either::Left(self.inner.call(request))
            }
            Err(invalid) => Either::Right(ready(Err(unauthenticated(invalid)))),
        }
    }
}

/// Returns the failure of a call without a valid credential, which says no more of the credential than what is wrong with it.
pub(super) fn unauthenticated(invalid: InvalidCredential) -> Failure {
    match invalid {
        InvalidCredential::Missing => Failure::new(
            Reason::CredentialMissing,
            "the call has no credential: a client certificate for a name, or a bearer token in its authorization",
        ),
        InvalidCredential::Unknown(_) => Failure::new(
            Reason::CredentialUnknown,
            "the call's authorization is no bearer token that the gateway knows",
        ),
        InvalidCredential::Expired => {
            Failure::new(Reason::CredentialExpired, "the caller's credential has expired: call with a new one")
        }
    }
}
