use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::error_info::{refusal, trailers};

/// Turns a panic in a call into INTERNAL, streams included; hyper would reset the call. The panic's own line is written by the
/// process's hook.
#[derive(Debug, Clone, Copy, Default)]
pub struct CatchPanicLayer;

/// The service of [`CatchPanicLayer`].
#[derive(Debug, Clone)]
pub struct CatchPanic<S> {
    inner: S,
}

pin_project! {
    /// The future of [`CatchPanic`].
    #[derive(Debug)]
    #[project = CatchPanicProjection]
    pub enum CatchPanicFuture<F> {
        /// The inner one.
        Inner {
            #[pin]
            inner: F,
        },
        /// There is none, since the call panicked.
        Panicked,
    }
}

/// The body of [`CatchPanic`]'s answers.
#[derive(Debug, Default)]
pub struct CatchPanicBody<B> {
    inner: B,
}

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

impl<S, R, B> Service<Request<R>> for CatchPanic<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<CatchPanicBody<B>>;
    type Error = S::Error;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        // What panicked is dropped, and never looked at again.
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => CatchPanicFuture::Inner { inner },
            Err(_) => CatchPanicFuture::Panicked,
        }
    }
}

impl<F, B, E> Future for CatchPanicFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<CatchPanicBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match self.project() {
            CatchPanicProjection::Inner { inner } => catch_unwind(AssertUnwindSafe(|| inner.poll(cx))).ok(),
            CatchPanicProjection::Panicked => None,
        };
        match polled {
            Some(polled) => polled.map(|outcome| outcome.map(|answer| answer.map(|inner| CatchPanicBody { inner }))),
            None => Poll::Ready(Ok(failed().into_http())),
        }
    }
}

impl<B> Body for CatchPanicBody<B>
where
    B: Body<Data = Bytes, Error = Status> + Default + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.inner).poll_frame(cx))).unwrap_or_else(|_panic| {
            this.inner = B::default();
            Poll::Ready(Some(trailers(&failed())))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

fn failed() -> Status {
    refusal(Code::Internal, "INTERNAL", "the gateway failed; its log says where", None)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic_types::StatusExt as _;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    type Answer = Result<Response<tonic::body::Body>, Infallible>;

    async fn status(answer: Response<CatchPanicBody<tonic::body::Body>>) -> (usize, Status) {
        let from_headers = Status::from_header_map(answer.headers());
        let body = answer.into_body().collect().await.unwrap();
        let from_trailers = body.trailers().and_then(Status::from_header_map);
        (body.to_bytes().len(), from_headers.or(from_trailers).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_internal_at_once_later_and_in_a_stream() {
        let at_once = service_fn(|_: Request<()>| -> std::future::Ready<Answer> { panic!("at once") });
        let later = service_fn(|_: Request<()>| async {
            tokio::task::yield_now().await;
            if true { panic!("later") } else { Answer::Ok(Response::default()) }
        });
        let streaming = service_fn(|_: Request<()>| async {
            let frames = stream::iter(0..).map(|index| {
                assert!(index < 2, "in a stream");
                Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))
            });
            Answer::Ok(Response::new(tonic::body::Body::new(StreamBody::new(frames))))
        });
        let answers = [
            (0, CatchPanicLayer.layer(at_once).oneshot(Request::new(())).await.unwrap()),
            (0, CatchPanicLayer.layer(later).oneshot(Request::new(())).await.unwrap()),
            (2, CatchPanicLayer.layer(streaming).oneshot(Request::new(())).await.unwrap()),
        ];
        for (sent, answer) in answers {
            let (bytes, status) = status(answer).await;
            assert_eq!((bytes, status.code()), (sent, Code::Internal));
            assert_eq!(status.get_details_error_info().unwrap().reason, "INTERNAL");
        }
    }
}
