//! Requests by tonic's codec: one message a call.

use std::{marker::PhantomData, pin::pin};

use http::{HeaderMap, HeaderValue, Request};
use prost::Message;
use tonic::{
    Code, Status, Streaming,
    body::Body,
    codec::{CompressionEncoding, DecodeBuf, Decoder},
    metadata::MetadataValue,
};

use super::failure::{Failure, GATEWAY};

/// Reads the message of a call, which is `max_size` bytes long at most.
///
/// # Errors
/// INVALID_ARGUMENT if it is not one message of the method's, RESOURCE_EXHAUSTED if it is too large, UNIMPLEMENTED if it is
/// compressed in a way that is not known.
pub(super) async fn message<R: Message + Default + 'static>(
    request: Request<Body>,
    max_size: usize,
) -> Result<R, Status> {
    let encoding = encoding(request.headers())?;
    let decoder = RequestDecoder(PhantomData);
    let mut messages = pin!(Streaming::new_request(decoder, request.into_body(), encoding, Some(max_size)));
    let failed = |status: Status| match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            let message = format!("the request is larger than {max_size} bytes");
            Failure::new(Code::ResourceExhausted, GATEWAY, "REQUEST_TOO_LARGE", message).into()
        }
        // It cannot be decompressed, or the flags of its frames are wrong.
        Code::Internal => Failure::malformed(status.message()).into(),
        _ => status,
    };
    let message = messages.message().await.map_err(failed)?;
    let message = message.ok_or_else(|| Failure::malformed("the call has no message"))?;
    match messages.message().await.map_err(failed)? {
        None => Ok(message),
        Some(_) => Err(Failure::malformed("the call has more than one message").into()),
    }
}

/// How the message is compressed, if it is.
fn encoding(headers: &HeaderMap) -> Result<Option<CompressionEncoding>, Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(CompressionEncoding::Gzip)),
        Some(b"zstd") => Ok(Some(CompressionEncoding::Zstd)),
        Some(other) => {
            let other = other.escape_ascii();
            let mut status = Status::unimplemented(format!("requests may be compressed by gzip or zstd, not {other}"));
            status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static("gzip,zstd,identity"));
            Err(status)
        }
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
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::proto::DescribeInstanceInformationRequest;

    /// What comes of a call whose body consists of these frames.
    fn read(frames: &[&[u8]], encoding: &str) -> Result<DescribeInstanceInformationRequest, Status> {
        let body = Full::new(frames.concat().into());
        let request = Request::builder().header("grpc-encoding", encoding).body(Body::new(body)).unwrap();
        message(request, 1 << 20).now_or_never().unwrap()
    }

    /// This message, in a frame with this flag.
    fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    /// `MaxResults: 7`.
    const SEVEN: [u8; 2] = [3 << 3, 7];

    fn gzipped(message: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gzip, message).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn a_call_is_one_message() {
        let seven = frame(0, &SEVEN);
        assert_eq!(read(&[&seven], "identity").unwrap().max_results, Some(7));
        assert_eq!(read(&[&[0; 5]], "identity").unwrap(), DescribeInstanceInformationRequest::default());
        for frames in [&[][..], &[&seven[..], &seven], &[&[0, 0, 0, 0, 1, 7]]] {
            assert_eq!(read(frames, "identity").unwrap_err().code(), Code::InvalidArgument, "{frames:?}");
        }
        assert!(read(&[&seven[..6]], "identity").is_err(), "cut off");
    }

    #[test]
    fn a_request_may_be_compressed_in_the_ways_that_are_common() {
        assert_eq!(read(&[&frame(1, &gzipped(&SEVEN))], "gzip").unwrap().max_results, Some(7));
        assert_eq!(read(&[&frame(1, &zstd::encode_all(&SEVEN[..], 0).unwrap())], "zstd").unwrap().max_results, Some(7));
        assert_eq!(read(&[&frame(0, &SEVEN)], "gzip").unwrap().max_results, Some(7), "it need not be");
        let refused = read(&[&frame(1, &SEVEN)], "snappy").unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert_eq!(refused.metadata().get("grpc-accept-encoding").unwrap(), "gzip,zstd,identity");
        for encoding in ["identity", "gzip", "zstd"] {
            assert_eq!(read(&[&frame(1, &SEVEN)], encoding).unwrap_err().code(), Code::InvalidArgument, "{encoding}");
        }
    }

    #[test]
    fn a_request_that_is_too_large_is_refused_and_not_to_be_repeated_however_small_it_was_made() {
        let bomb = frame(1, &gzipped(&vec![0; 2 << 20]));
        assert!(bomb.len() < 10_000);
        for (frames, encoding) in [(&[0, 0, 0x10, 0, 1][..], "identity"), (&bomb, "gzip")] {
            let status = read(&[frames], encoding).unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert_eq!(status.get_details_error_info().unwrap().reason, "REQUEST_TOO_LARGE");
            assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
        }
    }
}
