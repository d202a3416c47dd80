use futures_util::{Stream, future, stream};
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use prost::Message;
use tonic::{
    Status,
    body::Body,
    codec::{EncodeBody, SingleMessageCompressionOverride},
};
use tonic_prost::ProstEncoder;

/// Returns the response that is this message.
pub(crate) fn answer<M: Message + 'static>(message: M) -> Response<Body> {
    answers(stream::once(future::ready(Ok(message))))
}

/// Returns the response that is these messages, none of them compressed, up to the first error.
pub(crate) fn answers<M: Message + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
) -> Response<Body> {
    let as_is = SingleMessageCompressionOverride::default();
    let body = EncodeBody::new_server(ProstEncoder::default(), messages, None, as_is, None);
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
