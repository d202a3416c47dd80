use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{Either, MapOk, Ready, TryFutureExt as _, ready};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body::{Body, Frame};
use tower::{Layer, Service};
use tracing::debug;

/// The body of a refusal, for people with a browser or curl.
const TEXT: &[u8] = b"This is a gRPC server: POST with content-type application/grpc.\n";
const GRPC: &str = "application/grpc";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// Rejects a request that is no gRPC call: with 405 if its method is not POST, with 415 if its content type is not
/// gRPC's. This is the outermost layer, so that only calls are counted, logged and traced as calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProtocolLayer;

/// The service of [`ProtocolLayer`].
#[derive(Debug, Clone)]
pub struct Protocol<S> {
    inner: S,
}

/// The body of [`Protocol`]'s answers.
#[derive(Debug)]
pub enum ProtocolBody<B> {
    /// The body of a call's answer.
    Call(B),
    /// The text that answers any other request, until it is sent.
    Text(Option<Bytes>),
}

impl<S> Layer<S> for ProtocolLayer {
    type Service = Protocol<S>;

    fn layer(&self, inner: S) -> Protocol<S> {
        Protocol { inner }
    }
}

type Answer<B> = Response<ProtocolBody<B>>;

impl<S, R, B> Service<Request<R>> for Protocol<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Answer<B>;
    type Error = S::Error;
    type Future = Either<MapOk<S::Future, fn(Response<B>) -> Answer<B>>, Ready<Result<Answer<B>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let (status, header) = if request.method() != Method::POST {
            (StatusCode::METHOD_NOT_ALLOWED, (ALLOW, HeaderValue::from_static("POST")))
        } else if !is_grpc(request.headers()) {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, (ACCEPT_POST, HeaderValue::from_static(GRPC)))
        } else {
            let call: fn(Response<B>) -> Answer<B> = |answer| answer.map(ProtocolBody::Call);
            return Either::Left(self.inner.call(request).map_ok(call));
        };
        debug!(status = status.as_u16(), "rejected a request that is no gRPC call");
        let text = (request.method() != Method::HEAD).then(|| Bytes::from_static(TEXT));
        let mut answer = Response::new(ProtocolBody::Text(text));
        *answer.status_mut() = status;
        answer.headers_mut().extend([header, (CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        Either::Right(ready(Ok(answer)))
    }
}

/// Returns whether the content type is `application/grpc` or `application/grpc+proto`, with whatever parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) else { return false };
    if content_type == GRPC.as_bytes() {
        return true;
    }
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [GRPC, "application/grpc+proto"].iter().any(|grpc| media_type.eq_ignore_ascii_case(grpc.as_bytes()))
}

impl<B> Body for ProtocolBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut *self {
            Self::Call(body) => Pin::new(body).poll_frame(cx),
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Call(body) => body.is_end_stream(),
            Self::Text(text) => text.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Empty};
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    fn answer(method: &str, content_type: Option<&str>) -> Answer<Empty<Bytes>> {
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Empty::new())));
        let mut request = Request::builder().method(method);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        ProtocolLayer.layer(inner).oneshot(request.body(()).unwrap()).now_or_never().unwrap().unwrap()
    }

    #[test]
    fn only_calls_of_grpc_are_passed_on() {
        let ours =
            ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8", "Application/gRPC;x=y"];
        for content_type in ours {
            assert_eq!(answer("POST", Some(content_type)).status(), 200, "{content_type}");
            assert_eq!(answer("PUT", Some(content_type)).status(), 405, "{content_type}");
        }
        let others = [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc+json",
            "application/json",
            "",
            "application/connect+proto",
        ];
        for content_type in others {
            assert_eq!(answer("POST", Some(content_type)).status(), 415, "{content_type}");
        }
        assert_eq!(answer("POST", None).status(), 415);
    }

    #[test]
    fn whoever_asks_otherwise_is_told_how_to_ask() {
        let get = answer("GET", None);
        let web = answer("POST", Some("application/grpc-web"));
        assert_eq!(
            (&get.headers()["allow"], &web.headers()["accept-post"]),
            (&"POST".parse().unwrap(), &GRPC.parse().unwrap())
        );
        let text = get.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        assert_eq!(text, TEXT);
    }
}
