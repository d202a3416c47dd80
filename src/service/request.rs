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
/// UNIMPLEMENTED if it is compressed, INVALID_ARGUMENT if it is not one message of the method's, OUT_OF_RANGE if it is too
/// large.
pub(super) async fn message<R: Message + Default + 'static>(request: Request<Body>) -> Result<R, Status> {
    if let Some(encoding) = request.headers().get("grpc-encoding").filter(|&encoding| encoding != "identity") {
        let mut status = Status::unimplemented(format!("requests are taken uncompressed only, not {encoding:?}"));
        status.metadata_mut().insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static("identity"));
        return Err(status);
    }
    let decoder = RequestDecoder(PhantomData);
    let mut messages = pin!(Streaming::new_request(decoder, request.into_body(), None, Some(MAX_SIZE)));
    let message = messages.message().await?.ok_or_else(|| Failure::malformed("the call has no message"))?;
    match messages.message().await? {
        None => Ok(message),
        Some(_) => Err(Failure::malformed("the call has more than one message").into()),
    }
}

/// Decodes protobuf, and says in a caller's terms what is wrong with it.
struct RequestDecoder<R>(PhantomData<R>);

impl<R: Message + Default> Decoder for RequestDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        let malformed = |error| format!("the request is not an encoded message of this method: {error}");
        R::decode(from).map(Some).map_err(|error| Failure::malformed(malformed(error)).into())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::Full;
    use tonic::Code;

    use super::*;
    use crate::proto::DescribeInstanceInformationRequest;

    /// What comes of a call whose body consists of these frames.
    fn read(frames: &[&[u8]], encoding: &str) -> Result<DescribeInstanceInformationRequest, Status> {
        let body = Full::new(frames.concat().into());
        let request = Request::builder().header("grpc-encoding", encoding).body(Body::new(body)).unwrap();
        message(request).now_or_never().unwrap()
    }

    /// `MaxResults: 7`, in a frame with this flag.
    fn frame(flag: u8) -> [u8; 7] {
        [flag, 0, 0, 0, 2, 3 << 3, 7]
    }

    #[test]
    fn a_call_is_one_message() {
        assert_eq!(read(&[&frame(0)], "identity").unwrap().max_results, Some(7));
        assert_eq!(read(&[&[0; 5]], "identity").unwrap(), DescribeInstanceInformationRequest::default());
        for frames in [&[][..], &[&frame(0)[..], &frame(0)], &[&[0, 0, 0, 0, 1, 7]]] {
            assert_eq!(read(frames, "identity").unwrap_err().code(), Code::InvalidArgument, "{frames:?}");
        }
        let too_large = [0, 0, 0x10, 0, 1];
        assert_eq!(read(&[&too_large], "identity").unwrap_err().code(), Code::OutOfRange);
        assert!(read(&[&frame(0)[..6]], "identity").is_err(), "cut off");
    }

    #[test]
    fn a_compressed_request_is_refused_with_what_is_taken() {
        let refused = read(&[&frame(1)], "gzip").unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert_eq!(refused.metadata().get("grpc-accept-encoding").unwrap(), "identity");
        assert!(read(&[&frame(1)], "identity").is_err());
    }
}
