use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Request;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use crate::{
    edge::peer_timeout::PeerTimeout,
    grpc::{Failure, Reason, Route},
};

/// Bounds how long the message of a call may take to arrive: a caller who sends it byte by byte would hold what calls
/// hold. A call of reflection may send any number of messages, for as long as it lasts.
#[derive(Debug, Clone, Copy)]
pub struct ArrivalLayer(pub Duration);

/// The service of [`ArrivalLayer`].
#[derive(Debug, Clone)]
pub struct Arrival<S> {
    inner: S,
    timeout: Duration,
}

pin_project! {
    /// The body of a request that must arrive in time.
    #[derive(Debug)]
    pub struct ArrivingBody<R> {
        #[pin]
        inner: R,
        peer_timeout: Option<PeerTimeout>,
    }
}

impl<S> Layer<S> for ArrivalLayer {
    type Service = Arrival<S>;

    fn layer(&self, inner: S) -> Arrival<S> {
        Arrival { inner, timeout: self.0 }
    }
}

impl<S, R> Service<Request<R>> for Arrival<S>
where
    S: Service<Request<ArrivingBody<R>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> S::Future {
        let is_unbounded = matches!(request.extensions().get(), Some(Route::Reflection | Route::ReflectionAlpha));
        let peer_timeout = (!is_unbounded).then(|| PeerTimeout::new(self.timeout));
        self.inner.call(request.map(|inner| ArrivingBody { inner, peer_timeout }))
    }
}

impl<R> Body for ArrivingBody<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    type Data = R::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<R::Data>, BoxError>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(peer_timeout) = this.peer_timeout else { return Poll::Pending };
        ready!(peer_timeout.poll(cx));
        let message = "the message of the call did not arrive in time";
        Poll::Ready(Some(Err(Failure::new(Reason::DeadlineExceeded, message).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{BodyExt as _, Collected, StreamBody};
    use tokio::time::{self, Instant};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::access::Method;

    /// Returns what comes of a body whose frames come a second apart, where two are allowed; and when.
    async fn read(route: Route, frames: usize) -> (Result<Bytes, Option<Reason>>, u128) {
        let drops = stream::unfold(0, move |sent| async move {
            time::sleep(Duration::from_secs(1)).await;
            (sent < frames).then(|| (Ok::<_, Failure>(Frame::data(Bytes::from_static(b"x"))), sent + 1))
        });
        let reading = service_fn(async |request: Request<ArrivingBody<_>>| {
            let body: Result<_, BoxError> = request.into_body().collect().await.map(Collected::to_bytes);
            Ok::<_, BoxError>(body)
        });
        let mut request = Request::new(Box::pin(StreamBody::new(drops)));
        request.extensions_mut().insert(route);
        let started = Instant::now();
        let body = ArrivalLayer(Duration::from_millis(2500)).layer(reading).oneshot(request).await.unwrap();
        (body.map_err(|error| error.downcast::<Failure>().unwrap().own_reason()), started.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_arrives_in_time_or_not_at_all() {
        let list = Route::Method(Method::ListTargets);
        assert_eq!(read(list, 1).await, (Ok(Bytes::from_static(b"x")), 2000));
        assert_eq!(read(list, 100).await, (Err(Some(Reason::DeadlineExceeded)), 2500));
        for reflection in [Route::Reflection, Route::ReflectionAlpha] {
            let (many, took) = read(reflection, 5).await;
            assert_eq!((many.unwrap().len(), took), (5, 6000));
        }
    }
}
