use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::{Layer, Service};

use super::{call::Call, metrics::Metrics};

/// Gives every call an `x-request-id`, the caller's own where it is usable, and tells of it when it ends: a line in the log, the
/// metrics, a span of its trace. Nothing of what was asked or answered is told.
#[derive(Debug, Clone)]
pub struct ObserveLayer {
    /// Where calls are counted.
    pub metrics: Metrics,
    /// A call whose answer takes longer to begin is told as a warning.
    pub slow_call: Duration,
    /// Whether calls have spans.
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

/// The body of [`Observe`]'s answers, which end with their status.
#[derive(Debug)]
pub struct ObserveBody<B> {
    inner: B,
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
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<ObserveBody<B>>;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        let call = Call::new(&self.layer, &mut request);
        let inner = call.within(|| self.inner.call(request));
        ObserveFuture { inner, call: Some(call) }
    }
}

impl<F, B, E> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ObserveBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(call) = this.call else { return Poll::Pending };
        let outcome = std::task::ready!(call.within(|| this.inner.poll(cx)));
        let Some(mut call) = this.call.take() else { return Poll::Pending };
        Poll::Ready(outcome.map(|mut answer| {
            call.answered(answer.headers_mut());
            answer.map(|inner| ObserveBody { inner, call })
        }))
    }
}

impl<B> Body for ObserveBody<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = this.call.within(|| Pin::new(&mut this.inner).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            this.call.see(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}
