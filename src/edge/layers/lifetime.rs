use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    edge::{
        call_end::{Bounds, CallEnd, Why},
        credential::Expiry,
        stage::Stages,
    },
    grpc::{Failure, timeout},
};

/// Ends calls that last too long, streams included, with a status: at the caller's `grpc-timeout`, at the gateway's own
/// maximum, when the caller's credential expires, and at the end of a drain. tonic's own time-out answers CANCELLED,
/// and stops watching when a stream begins. The connection resets the stream of a call that stalls, or that no status
/// can end.
#[derive(Debug, Clone)]
pub struct LifetimeLayer {
    /// How long any call may last.
    pub max: Duration,
    /// The stage of the gateway, which ends calls in a drain.
    pub stages: Stages,
    /// How long the peer may read nothing of what it is offered.
    pub stall_timeout: Duration,
}

/// The service of [`LifetimeLayer`].
#[derive(Debug, Clone)]
pub struct Lifetime<S> {
    inner: S,
    layer: LifetimeLayer,
}

pin_project! {
    /// The future of [`Lifetime`].
    #[derive(Debug)]
    pub struct LifetimeFuture<F> {
        #[pin]
        inner: F,
        lasting: Option<Lasting>,
    }
}

/// The body of [`Lifetime`]'s answers; none after the call's end.
#[derive(Debug)]
pub struct LifetimeBody<B>(Option<(B, Lasting)>);

/// A call in progress, and the wait for its end.
struct Lasting {
    end: Arc<CallEnd>,
    /// Ready when the call must end. Absent until the call has to wait: before that a look at the clock suffices.
    due: Option<Pin<Box<dyn Future<Output = Failure> + Send>>>,
}

impl<S> Layer<S> for LifetimeLayer {
    type Service = Lifetime<S>;

    fn layer(&self, inner: S) -> Lifetime<S> {
        Lifetime { inner, layer: self.clone() }
    }
}

impl<S, R, B> Service<Request<R>> for Lifetime<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Failure>,
{
    type Response = Response<LifetimeBody<B>>;
    type Error = Failure;
    type Future = LifetimeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        // Put there by the connection. A call without a connection has no stream to reset.
        let end = request.extensions().get().map_or_else(|| Arc::new(CallEnd::new()), Arc::clone);
        end.bound(self.layer.bounds(&request));
        LifetimeFuture { inner: self.inner.call(request), lasting: Some(Lasting { end, due: None }) }
    }
}

impl<F, B> Future for LifetimeFuture<F>
where
    F: Future<Output = Result<Response<B>, Failure>>,
{
    type Output = Result<Response<LifetimeBody<B>>, Failure>;

    #[expect(clippy::expect_used, reason = "a future is not polled after its completion")]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            let lasting = this.lasting.take();
            return Poll::Ready(outcome.map(|answer| answer.map(|inner| LifetimeBody(Some(inner).zip(lasting)))));
        }
        let lasting = this.lasting.as_mut().expect("`LifetimeFuture` polled after completion");
        lasting.poll_due(cx).map(Err)
    }
}

impl<B> Body for LifetimeBody<B>
where
    B: Body<Data = Bytes, Error = Failure> + Unpin,
{
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some((inner, lasting)) = &mut self.0 else { return Poll::Ready(None) };
        let now = Instant::now();
        // First the end: a stream that always has a frame ready must end, too.
        let failure = match lasting.end.failure(now) {
            Some(failure) => failure,
            None => match Pin::new(inner).poll_frame(cx) {
                Poll::Pending => {
                    lasting.end.nothing_to_offer();
                    ready!(lasting.poll_due(cx))
                }
                frame @ Poll::Ready(_) => {
                    lasting.end.offer(now);
                    return frame;
                }
            },
        };
        self.0 = None;
        Poll::Ready(Some(Err(failure)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|(inner, _)| inner.is_end_stream())
    }
}

impl LifetimeLayer {
    /// Returns the bounds of a call.
    fn bounds<R>(&self, request: &Request<R>) -> Bounds {
        let now = Instant::now();
        let expiry = request.extensions().get().map(|&Expiry(at)| (at, Why::Credential));
        // A header that is no time is refused where requests are read (`grpc::Messages`).
        let timeout = timeout(request.headers()).ok().flatten();
        let timeout = timeout.map(|timeout| (now + timeout, Why::Deadline(timeout)));
        let bounds = [expiry, timeout].into_iter().flatten();
        let earlier = |earliest: (Instant, Why), bound: (Instant, Why)| {
            if bound.0 < earliest.0 { bound } else { earliest }
        };
        let (at, why) = bounds.fold((now + self.max, Why::Maximum(self.max)), earlier);
        Bounds { at, why, stages: self.stages.clone(), stall_timeout: self.stall_timeout }
    }
}

impl Lasting {
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let due = self.due.get_or_insert_with(|| {
            let end = Arc::clone(&self.end);
            Box::pin(async move { end.due().await })
        });
        due.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lasting").field("end", &self.end).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
