use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, future, stream};
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

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
    response(
        StreamBody::new(messages.map_ok(|message| Frame::data(message_head(&message, None, 0).into()))).boxed_unsync(),
    )
}

/// Returns the response with this body.
pub(crate) fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Encodes what precedes the `following` bytes of a message, which are the text of a cursor, if any, and records: the
/// prefix, all other fields, and the key of the cursor's field. Protobuf accepts fields in any order.
pub(crate) fn message_head(rest: &impl Message, cursor: Option<(u32, usize)>, following: usize) -> Vec<u8> {
    const KEY: usize = 16;
    let mut head = Vec::with_capacity(PREFIX + rest.encoded_len() + KEY);
    head.resize(PREFIX, 0);
    rest.encode_raw(&mut head);
    if let Some((field, len)) = cursor {
        encode_key(field, WireType::LengthDelimited, &mut head);
        encode_varint(len as u64, &mut head);
    }
    #[expect(
        clippy::expect_used,
        reason = "a page ends before 4 MiB, or is a node of an answer that is bounded itself"
    )]
    let len = u32::try_from(head.len() - PREFIX + following).expect("a message is smaller than 4 GiB");
    head.splice(1..PREFIX, len.to_be_bytes());
    head
}
