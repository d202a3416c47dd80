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
use tower::{Layer, Service};

use crate::grpc::{Failure, Reason};

/// Turns a panic in a call into INTERNAL, streams included, where hyper would reset the call. The panic itself is
/// logged by the panic hook of the process.
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
        /// The inner future.
        Inner {
            #[pin]
            inner: F,
        },
        /// The call panicked before it had a future.
        Panicked,
    }
}

/// The body of [`CatchPanic`]'s answers.
#[derive(Debug)]
pub struct CatchPanicBody<B> {
    /// None after a panic.
    inner: Option<B>,
}

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

impl<S, R, B> Service<Request<R>> for CatchPanic<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Failure>,
{
    type Response = Response<CatchPanicBody<B>>;
    type Error = Failure;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
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

impl<F, B> Future for CatchPanicFuture<F>
where
    F: Future<Output = Result<Response<B>, Failure>>,
{
    type Output = Result<Response<CatchPanicBody<B>>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match self.project() {
            CatchPanicProjection::Inner { inner } => catch_unwind(AssertUnwindSafe(|| inner.poll(cx))).ok(),
            CatchPanicProjection::Panicked => None,
        };
        match polled {
            Some(polled) => polled.map_ok(|answer| answer.map(|inner| CatchPanicBody { inner: Some(inner) })),
            None => Poll::Ready(Err(failed())),
        }
    }
}

impl<B> Body for CatchPanicBody<B>
where
    B: Body<Data = Bytes, Error = Failure> + Unpin,
{
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx))).unwrap_or_else(|_panic| {
            self.inner = None;
            Poll::Ready(Some(Err(failed())))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}

fn failed() -> Failure {
    Failure::new(Reason::Internal, "the gateway failed; its log says where")
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::grpc;

    type Answer = Result<Response<grpc::Body>, Failure>;

    /// The bytes that came, and the failure with which the call ended.
    async fn ended(answer: Result<Response<CatchPanicBody<grpc::Body>>, Failure>) -> (usize, Option<Reason>) {
        let mut body = match answer {
            Ok(answer) => answer.into_body(),
            Err(failure) => return (0, failure.own_reason()),
        };
        let mut sent = 0;
        loop {
            match body.frame().await.unwrap() {
                Ok(frame) => sent += frame.into_data().unwrap().len(),
                Err(failure) => return (sent, failure.own_reason()),
            }
        }
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
                Ok::<_, Failure>(Frame::data(Bytes::from_static(b"x")))
            });
            Answer::Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
        });
        let answers = [
            (0, CatchPanicLayer.layer(at_once).oneshot(Request::new(())).await),
            (0, CatchPanicLayer.layer(later).oneshot(Request::new(())).await),
            (2, CatchPanicLayer.layer(streaming).oneshot(Request::new(())).await),
        ];
        for (sent, answer) in answers {
            assert_eq!(ended(answer).await, (sent, Some(Reason::Internal)));
        }
    }
}
