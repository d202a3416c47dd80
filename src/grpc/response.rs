use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt as _, future, stream};
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use prost::Message;

use super::Failure;

/// The body of an answer: messages, and how they end. The edge writes the status.
pub type Body = UnsyncBoxBody<Bytes, Failure>;

/// The bytes before a message on the wire: whether the message is compressed, and its length.
pub(crate) const PREFIX: usize = 5;

/// Returns the response that is this message.
pub(crate) fn answer<M: Message + 'static>(message: M) -> Response<Body> {
    answers(stream::once(future::ready(Ok(message))))
}

/// Returns the response that is these messages, none of them compressed, up to the first failure.
pub(crate) fn answers<M: Message + 'static>(
    messages: impl Stream<Item = Result<M, Failure>> + Send + 'static,
) -> Response<Body> {
    response(StreamBody::new(messages.map_ok(|message| Frame::data(frame(&message)))).boxed_unsync())
}

/// Returns the response with this body.
pub(crate) fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Returns the message as it is on the wire.
#[expect(clippy::expect_used, reason = "a wrong length would break the connection's other messages")]
fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + len);
    frame.put_u8(0);
    frame.put_u32(len.try_into().expect("the gateway's own messages are far smaller than 4 GiB"));
    message.encode_raw(&mut frame);
    frame.freeze()
}
