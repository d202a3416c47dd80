//! Requests by tonic's codec: one message a call.

use std::{marker::PhantomData, pin::pin};

use http::Request;
use prost::Message;
use tonic::{
    Status, Streaming,
    body::Body,
    codec::{DecodeBuf, Decoder},
};

use super::failure::Failure;

/// The largest request, in bytes: AWS takes 100 values a filter, and nobody needs more than this of them.
const MAX_SIZE: usize = 1 << 20;

/// Reads the message of a call.
///
/// # Errors
/// UNIMPLEMENTED if it is compressed, INVALID_ARGUMENT if it is not the method's, OUT_OF_RANGE if it is too large.
pub(super) async fn message<R: Message + Default + 'static>(request: Request<Body>) -> Result<R, Status> {
    if let Some(encoding) = request.headers().get("grpc-encoding").filter(|&encoding| encoding != "identity") {
        let mut status = Status::unimplemented(format!("requests are taken uncompressed only, not {encoding:?}"));
        status.metadata_mut().insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static("identity"));
        return Err(status);
    }
    let decoder = RequestDecoder(PhantomData);
    let mut messages = pin!(Streaming::new_request(decoder, request.into_body(), None, Some(MAX_SIZE)));
    let message = messages.message().await?.ok_or_else(Failure::missing)?;
    // To the end: what follows the message is nothing, or an error of the stream's.
    messages.trailers().await?;
    Ok(message)
}

/// Decodes protobuf, and says in a caller's terms what is wrong with it.
struct RequestDecoder<R>(PhantomData<R>);

impl<R: Message + Default> Decoder for RequestDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(from).map(Some).map_err(|error| Failure::malformed(&error).into())
    }
}
