use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future;
use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::{self, Instant};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{
    authenticate::unauthenticated,
    credential::InvalidCredential,
    error_info::{refusal, trailers},
    stage::{Stage, Stages},
};
use crate::grpc::timeout;

/// When callers whose call was ended by a drain may come back: at once, elsewhere.
const DRAINING_RETRY: Duration = Duration::from_millis(100);

/// Ends calls that last too long, streams included, with a status: at the caller's `grpc-timeout`, at the gateway's own
/// maximum, when the caller's credential expires, and at the end of a drain. tonic's own time-out answers CANCELLED, and stops
/// watching when a stream begins.
#[derive(Debug, Clone)]
pub struct LifetimeLayer {
    /// How long any call may last.
    pub max: Duration,
    /// Where the drain is.
    pub stages: Stages,
}

/// When the credential of a request expires; among its extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry(pub(super) Instant);

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
        bounds: Option<Bounds>,
    }
}

/// The body of [`Lifetime`]'s answers; by default, of one that has ended.
#[derive(Debug, Default)]
pub struct LifetimeBody<B> {
    inner: B,
    bounds: Option<Bounds>,
}

/// When a call ends, and why.
struct Bounds {
    at: Instant,
    why: Why,
    stages: Stages,
    /// Ready at the end. There is none before something has to be waited for: then a look at the clock does.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

#[derive(Debug, Clone, Copy)]
enum Why {
    Deadline(Duration),
    Maximum(Duration),
    Credential,
}

impl<S> Layer<S> for LifetimeLayer {
    type Service = Lifetime<S>;

    fn layer(&self, inner: S) -> Lifetime<S> {
        Lifetime { inner, layer: self.clone() }
    }
}

impl<S, R, B> Service<Request<R>> for Lifetime<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<LifetimeBody<B>>;
    type Error = S::Error;
    type Future = LifetimeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let bounds = Bounds::new(&self.layer, &request);
        LifetimeFuture { inner: self.inner.call(request), bounds: Some(bounds) }
    }
}

impl<F, B, E> Future for LifetimeFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<LifetimeBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            let bounds = this.bounds.take();
            return Poll::Ready(outcome.map(|answer| answer.map(|inner| LifetimeBody { inner, bounds })));
        }
        let Some(bounds) = this.bounds else { return Poll::Pending };
        bounds.poll_end(cx).map(|status| Ok(status.into_http()))
    }
}

impl<B> Body for LifetimeBody<B>
where
    B: Body<Data = Bytes, Error = Status> + Default + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(bounds) = &mut this.bounds else { return Poll::Ready(None) };
        // The end first: a stream that always has a frame ready must end too.
        let status = match bounds.look() {
            Some(status) => status,
            None => match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => ready!(bounds.poll_end(cx)),
                frame @ Poll::Ready(_) => return frame,
            },
        };
        *this = Self::default();
        Poll::Ready(Some(trailers(&status)))
    }

    fn is_end_stream(&self) -> bool {
        self.bounds.is_none() || self.inner.is_end_stream()
    }
}

impl Bounds {
    fn new<R>(layer: &LifetimeLayer, request: &Request<R>) -> Self {
        let now = Instant::now();
        let expiry = request.extensions().get().map(|&Expiry(at)| (at, Why::Credential));
        // A header that is no time is refused where requests are read (`grpc::Messages`).
        let timeout = timeout(request.headers()).ok().flatten();
        let timeout = timeout.map(|timeout| (now + timeout, Why::Deadline(timeout)));
        let bounds = [expiry, timeout].into_iter().flatten();
        let (at, why) = bounds.fold((now + layer.max, Why::Maximum(layer.max)), |earliest, bound| {
            if bound.0 < earliest.0 { bound } else { earliest }
        });
        Self { at, why, stages: layer.stages.clone(), end: None }
    }

    /// Tells with what status the call ends, if it does now.
    fn look(&self) -> Option<Status> {
        if self.stages.is_at(Stage::Ending) {
            let message = "the gateway is going away: call another one, a stream from its last resume token on";
            return Some(refusal(Code::Unavailable, "DRAINING", message, Some(DRAINING_RETRY)));
        }
        (Instant::now() >= self.at).then(|| match self.why {
            Why::Deadline(after) => passed("the caller's deadline", after),
            Why::Maximum(after) => passed("the gateway's own limit", after),
            Why::Credential => unauthenticated(InvalidCredential::Expired),
        })
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let (at, stages) = (self.at, &self.stages);
        let end = self.end.get_or_insert_with(|| {
            let stages = stages.clone();
            Box::pin(async move {
                let ending = std::pin::pin!(stages.reached(Stage::Ending));
                future::select(ending, std::pin::pin!(time::sleep_until(at))).await;
            })
        });
        ready!(end.as_mut().poll(cx));
        self.look().map_or(Poll::Pending, Poll::Ready)
    }
}

fn passed(what: &str, after: Duration) -> Status {
    let message = format!("{what} of {} passed", humantime::format_duration(after));
    refusal(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message, None)
}

impl std::fmt::Debug for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounds").field("at", &self.at).field("why", &self.why).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
