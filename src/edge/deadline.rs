use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use pin_project_lite::pin_project;
use tokio::time::{self, Sleep};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::error_info::explained;

/// Ends every call at its caller's `grpc-timeout` with DEADLINE_EXCEEDED, streams included: tonic's own time-out answers
/// CANCELLED, and stops watching when a stream begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
}

pin_project! {
    /// The future of [`Deadline`].
    #[derive(Debug)]
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        timer: Option<Timer>,
    }
}

/// The body of a call that has a deadline.
struct DeadlineBody {
    inner: Body,
    timer: Option<Timer>,
}

#[derive(Debug)]
struct Timer {
    after: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let timer = timeout(request.headers()).map(Timer::new);
        DeadlineFuture { inner: self.inner.call(request), timer }
    }
}

impl<F, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            let Some(timer) = this.timer.take() else { return Poll::Ready(outcome) };
            return Poll::Ready(
                outcome.map(|answer| answer.map(|inner| Body::new(DeadlineBody { inner, timer: Some(timer) }))),
            );
        }
        match this.timer {
            Some(timer) => timer.poll(cx).map(|status| Ok(status.into_http())),
            None => Poll::Pending,
        }
    }
}

impl http_body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(timer) = &mut this.timer else { return Poll::Ready(None) };
        // The deadline first: a stream that always has a frame ready must end too.
        if let Poll::Ready(status) = timer.poll(cx) {
            this.timer = None;
            this.inner = Body::empty();
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut this.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.timer.is_none() || self.inner.is_end_stream()
    }
}

impl Timer {
    fn new(after: Duration) -> Self {
        Self { after, sleep: Box::pin(time::sleep(after)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.sleep.as_mut().poll(cx).map(|()| {
            let message = format!("the caller's deadline of {} passed", humantime::format_duration(self.after));
            explained(Code::DeadlineExceeded, message)
        })
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit. One that is malformed is none, as with other servers.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
