use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::call::Call;
use crate::{edge::metrics::Metrics, grpc::Failure};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Gives every call an `x-request-id`, the caller's own where it is usable, writes its status to the wire, and reports
/// the call when it ends: a line in the log, the metrics, a span of its trace. Nothing of what was asked or answered is
/// reported.
#[derive(Debug, Clone)]
pub struct ObserveLayer {
    /// The metrics that count calls.
    pub metrics: Metrics,
    /// The time after which a call whose answer has not begun is slow, and logged as a warning.
    pub slow_call: Duration,
    /// Whether calls have spans of their own in traces.
    pub is_traced: bool,
}

/// The service of [`ObserveLayer`].
#[derive(Debug, Clone)]
pub struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

pin_project! {
    /// The future of [`Observe`].
    #[derive(Debug)]
    pub struct ObserveFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

/// The body of [`Observe`]'s answers, which ends with the call's status.
#[derive(Debug)]
pub struct ObserveBody<B> {
    /// None when the status is written.
    inner: Option<B>,
    call: Call,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, layer: self.clone() }
    }
}

impl<S, R, B> Service<Request<R>> for Observe<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Failure>,
{
    type Response = Response<ObserveBody<B>>;
    type Error = Infallible;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // What refuses calls refuses them one by one.
        self.inner.poll_ready(cx).map(|_always_ready| Ok(()))
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        let ObserveLayer { metrics, slow_call, is_traced } = &self.layer;
        let call = Call::new(metrics, *slow_call, *is_traced, &mut request);
        let inner = call.within(|| self.inner.call(request));
        ObserveFuture { inner, call: Some(call) }
    }
}

impl<F, B> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<B>, Failure>>,
{
    type Output = Result<Response<ObserveBody<B>>, Infallible>;

    #[expect(clippy::expect_used, reason = "a future is not polled after its completion")]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = this.call.as_ref().expect("`ObserveFuture` polled after completion");
        let outcome = std::task::ready!(call.within(|| this.inner.poll(cx)));
        let mut call = this.call.take().expect("it was there a moment ago");
        let (mut head, inner) = match outcome {
            Ok(answer) => {
                let (head, inner) = answer.into_parts();
                (head, Some(inner))
            }
            Err(failure) => {
                let (mut head, ()) = Response::new(()).into_parts();
                head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                failure.write(&mut head.headers);
                call.ended(Err(failure));
                (head, None)
            }
        };
        call.answered(&mut head.headers);
        Poll::Ready(Ok(Response::from_parts(head, ObserveBody { inner, call })))
    }
}

impl<B> Body for ObserveBody<B>
where
    B: Body<Data = Bytes, Error = Failure> + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { inner: Some(inner), call } = &mut *self else { return Poll::Ready(None) };
        let mut trailers = HeaderMap::new();
        match std::task::ready!(call.within(|| Pin::new(inner).poll_frame(cx))) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            Some(Err(failure)) => {
                failure.write(&mut trailers);
                call.ended(Err(failure));
            }
            None => {
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                call.ended(Ok(()));
            }
        }
        self.inner = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none()
    }
}
