use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::Request;
use tower::{Layer, Service};

use crate::grpc::{Failure, Reason};

/// How many bytes each field counts beside its name and value (RFC 9113, section 6.5.2).
const FIELD: usize = 32;

/// Refuses calls whose headers are larger than so many bytes. The limit of HTTP/2 itself is larger: beyond it there is
/// no gRPC status, only status 431.
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

impl<S, R> Service<Request<R>> for HeaderList<S>
where
    S: Service<Request<R>, Error = Failure>,
{
    type Response = S::Response;
    type Error = Failure;
    type Future = Either<S::Future, Ready<Result<S::Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let size = size(&request);
        if size <= self.max {
            return Either::Left(self.inner.call(request));
        }
        Either::Right(ready(Err(too_large(size, self.max))))
    }
}

/// Returns the size of a request's header list, as HTTP/2 counts it.
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

fn too_large(size: usize, max: usize) -> Failure {
    let message = format!("the headers of the call count {size} bytes, the most is {max} (edge.max_header_list_size)");
    Failure::new(Reason::HeadersTooLarge, message)
}

#[cfg(test)]
mod tests {
    use http::Response;
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
            let served = service_fn(async |_: Request<()>| Ok(Response::new(())));
            HeaderListLayer(max).layer(served).oneshot(request()).await
        };
        assert!(answer(expected).await.is_ok());
        let failure = answer(expected - 1).await.unwrap_err();
        assert_eq!(failure.own_reason(), Some(Reason::HeadersTooLarge));
        assert!(failure.message().contains("max_header_list_size"), "{failure}");
    }
}
