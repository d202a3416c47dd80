use std::{
    collections::HashMap,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use tower::{Layer, Service};

use super::error_info::refusal_with;

/// What each field counts for beside its name and value (RFC 9113, section 6.5.2).
const FIELD: usize = 32;

/// Refuses calls whose headers are larger than so many bytes. HTTP/2's own limit is larger, since it knows no status of gRPC.
#[derive(Debug, Clone, Copy)]
pub struct HeaderListLayer(pub u32);

/// The service of [`HeaderListLayer`].
#[derive(Debug, Clone)]
pub struct HeaderList<S> {
    inner: S,
    max: usize,
}

impl<S> Layer<S> for HeaderListLayer {
    type Service = HeaderList<S>;

    fn layer(&self, inner: S) -> HeaderList<S> {
        HeaderList { inner, max: usize::try_from(self.0).unwrap_or(usize::MAX) }
    }
}

impl<S, R, B> Service<Request<R>> for HeaderList<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<B>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let size = size(&request);
        if size <= self.max {
            return Either::Left(self.inner.call(request));
        }
        Either::Right(ready(Ok(too_large(size, self.max).into_http())))
    }
}

/// Returns the size of a request's header list, by HTTP/2's way of counting.
fn size<R>(request: &Request<R>) -> usize {
    let uri = request.uri();
    let pseudo = [
        (":method", Some(request.method().as_str())),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(http::uri::Authority::as_str)),
        (":path", uri.path_and_query().map(http::uri::PathAndQuery::as_str)),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some(name.len() + value?.len() + FIELD));
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    pseudo.sum::<usize>() + fields.sum::<usize>()
}

fn too_large(size: usize, max: usize) -> Status {
    let cause = HashMap::from([("cause".to_owned(), "headers".to_owned())]);
    let details = ErrorDetails::with_error_info("REQUEST_TOO_LARGE", "ssm-gateway", cause);
    let message = format!("the headers of the call count {size} bytes, the most is {max} (edge.max_header_list_size)");
    refusal_with(Code::ResourceExhausted, details, message, None)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::body::Body;
    use tonic_types::StatusExt as _;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn headers_count_as_http2_counts_them_and_one_byte_more_than_may_be_is_refused() {
        let request = || {
            let request = Request::post("http://a/b").header("x", "y".repeat(100));
            request.body(()).unwrap()
        };
        let expected = (7 + 4 + 32) + (7 + 4 + 32) + (10 + 1 + 32) + (5 + 2 + 32) + (1 + 100 + 32);
        let answer = async |max: u32| {
            let served = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::default())));
            let answer = HeaderListLayer(max).layer(served).oneshot(request()).await.unwrap();
            Status::from_header_map(answer.headers())
        };
        assert!(answer(expected).await.is_none());
        let status = answer(expected - 1).await.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_error_info().unwrap().reason, "REQUEST_TOO_LARGE");
        assert!(status.message().contains("max_header_list_size"), "{}", status.message());
    }
}
