use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use tower::{Layer, Service};

use super::{
    authenticator::Authenticator,
    credential::{Credential, Expiry, InvalidCredential},
    error_info::refusal_with,
};
use crate::grpc::{CallNotes, Route, no_such_method};

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

impl<S, R, B> Service<Request<R>> for Authenticate<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<B>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        match Route::of(request.uri().path()) {
            Some(Route::Method(_) | Route::Reflection) => {}
            Some(Route::HealthCheck | Route::HealthWatch) => return Either::Left(self.inner.call(request)),
            None => return Either::Right(ready(Ok(no_such_method().into_http()))),
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
            Err(invalid) => Either::Right(ready(Ok(unauthenticated(invalid).into_http()))),
        }
    }
}

/// Tells why a caller was refused, and no more of its credential than that.
pub(super) fn unauthenticated(invalid: InvalidCredential) -> Status {
    let (cause, message) = match invalid {
        InvalidCredential::Missing => (
            "missing",
            "the call has no credential: a client certificate for a name, or a bearer token in its authorization",
        ),
        InvalidCredential::Unknown(_) => {
            ("unknown", "the call's authorization is no bearer token that the gateway knows")
        }
        InvalidCredential::Expired => ("expired", "the caller's credential has expired: call with a new one"),
    };
    let cause = HashMap::from([("cause".to_owned(), cause.to_owned())]);
    let details = ErrorDetails::with_error_info("UNAUTHENTICATED", "ssm-gateway", cause);
    refusal_with(Code::Unauthenticated, details, message, None)
}
