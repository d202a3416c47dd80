use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer, Service};
use tracing::{Span, field::Empty, info, info_span};

const REQUEST_ID: &str = "x-request-id";
/// How much of a method's name is written.
const MAX_METHOD: usize = 128;
/// The longest ID of a caller's own that is kept.
const MAX_REQUEST_ID: usize = 128;

/// Gives every call an `x-request-id`, the caller's own where it is usable, and writes one line when the call ends: the
/// ID, the method, who called, the status and why, the time it took. Nothing of what was asked or answered is in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallLogLayer;

/// The service of [`CallLogLayer`].
#[derive(Debug, Clone)]
pub struct CallLog<S> {
    inner: S,
}

pin_project! {
    /// The future of [`CallLog`].
    #[derive(Debug)]
    pub struct CallLogFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

/// The body of [`CallLog`]'s answers, which end with their status.
#[derive(Debug)]
pub struct CallLogBody<B> {
    inner: B,
    call: Call,
}

/// A call until its end, which is written down when this is dropped.
#[derive(Debug)]
struct Call {
    request_id: HeaderValue,
    span: Span,
    started: Instant,
    /// Unknown until the status is seen: a caller that goes away before never sees it.
    code: Option<Code>,
    /// Of an error: its `ErrorInfo`'s reason, and the cause among its metadata.
    reason: Option<(String, Option<String>)>,
}

impl<S> Layer<S> for CallLogLayer {
    type Service = CallLog<S>;

    fn layer(&self, inner: S) -> CallLog<S> {
        CallLog { inner }
    }
}

impl<S, R, B> Service<Request<R>> for CallLog<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<CallLogBody<B>>;
    type Error = S::Error;
    type Future = CallLogFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let request_id = request_id(request.headers());
        // Whoever calls, by whatever name, fills no log.
        let method = request.uri().path().get(..MAX_METHOD).unwrap_or(request.uri().path());
        let id = request_id.to_str().unwrap_or_default();
        let span = info_span!("call", method, request_id = id, principal = Empty);
        let call = Call { request_id, span, started: Instant::now(), code: None, reason: None };
        let inner = call.span.in_scope(|| self.inner.call(request));
        CallLogFuture { inner, call: Some(call) }
    }
}

impl<F, B, E> Future for CallLogFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CallLogBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(call) = this.call else { return Poll::Pending };
        let outcome = std::task::ready!(call.span.in_scope(|| this.inner.poll(cx)));
        let Some(mut call) = this.call.take() else { return Poll::Pending };
        Poll::Ready(outcome.map(|mut answer| {
            call.see(answer.headers());
            answer.headers_mut().insert(REQUEST_ID, call.request_id.clone());
            answer.map(|inner| CallLogBody { inner, call })
        }))
    }
}

impl<B> Body for CallLogBody<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = this.call.span.in_scope(|| Pin::new(&mut this.inner).poll_frame(cx));
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

impl Call {
    /// Notes the status if it is among these headers or trailers.
    fn see(&mut self, headers: &HeaderMap) {
        if !self.span.is_disabled()
            && let Some(status) = Status::from_header_map(headers)
        {
            self.code = Some(status.code());
            self.reason = status.get_details_error_info().map(|mut info| (info.reason, info.metadata.remove("cause")));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.span.is_disabled() {
            return;
        }
        let status = self.code.map_or_else(|| "cut off".to_owned(), |code| format!("{code:?}"));
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (reason, cause) = self.reason.take().unzip();
        self.span.in_scope(|| info!(status, reason, cause = cause.flatten(), micros, "call ended"));
    }
}

/// The caller's ID, if it is short and visible ASCII, else one of ours: 16 hexadecimal digits.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_usable =
        |id: &&HeaderValue| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let mut id = match headers.get(REQUEST_ID).filter(is_usable) {
        Some(id) => id.clone(),
        None => {
            HeaderValue::try_from(format!("{:016x}", fastrand::u64(..))).unwrap_or(HeaderValue::from_static("none"))
        }
    };
    // Each is seen once: it must not push what comes again out of the tables of HTTP/2's compression.
    id.set_sensitive(true);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_of_the_caller_is_kept_and_any_other_replaced() {
        let with = |id: &[u8]| {
            let id = HeaderValue::from_bytes(id).unwrap();
            request_id(&HeaderMap::from_iter([(http::HeaderName::from_static(REQUEST_ID), id)]))
        };
        assert_eq!(with(b"order-7/retry-1"), "order-7/retry-1");
        assert_eq!(with(&[b'a'; 128]).len(), 128);
        for unusable in [&[b'a'; 129][..], b"", b"two words", "café".as_bytes()] {
            assert_eq!(with(unusable).len(), 16);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
