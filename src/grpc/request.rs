//! The messages of a request. A message on the wire is a five-byte prefix (is it compressed, how long is it) and its
//! bytes. Not by tonic's `Streaming`, which answers INTERNAL for what the caller got wrong, and takes a request that
//! ends right behind a prefix for a whole one.

use std::{
    io::{self, Read},
    marker::PhantomData,
};

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use prost::Message;
use tower::BoxError;

use super::{Failure, Reason, timeout, timeout::single};

/// The body of a request. Its errors are those of the transport, or a [`Failure`].
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// The largest window of zstd that a caller may have used, as a power of two: what RFC 8878 asks every decoder for.
/// zstd itself would take sixteen times as much memory for a few bytes.
const MAX_WINDOW_LOG: u32 = 23;
/// The longest name of a caller's that is repeated to it.
const MAX_NAME: usize = 128;

/// Decompresses a message, up to one byte more than this many.
type Decompress = fn(&[u8], usize) -> io::Result<Vec<u8>>;

/// Reads the messages of a request, each at most `max_size` bytes long. After an error there is nothing more to read.
pub(crate) struct Messages<R> {
    body: RequestBody,
    /// What has arrived of the next message.
    buffer: BytesMut,
    decompress: Option<Decompress>,
    max_size: usize,
    of: PhantomData<fn() -> R>,
}

/// Reads the message of a call that consists of one.
///
/// # Errors
/// What [`Messages`] reports, and INVALID_ARGUMENT if there is no message or more than one.
pub(crate) async fn message<R: Message + Default>(
    request: Request<RequestBody>,
    max_size: usize,
) -> Result<R, Failure> {
    let mut messages = Messages::new(request, max_size)?;
    let message = messages.next().await?.ok_or_else(|| Failure::malformed("the call has no message"))?;
    match messages.next().await? {
        None => Ok(message),
        Some(_) => Err(Failure::malformed("the call has more than one message")),
    }
}

impl<R: Message + Default> Messages<R> {
    /// Checks the headers of a request and begins to read its body.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if `grpc-timeout` is no time or there are two of it or of `grpc-encoding`, UNIMPLEMENTED if
    /// `grpc-encoding` is not known here.
    pub(crate) fn new(request: Request<RequestBody>, max_size: usize) -> Result<Self, Failure> {
        // `Lifetime` ends a call at its deadline and ignores a deadline that is no time: that one is refused here, with
        // all else that callers get wrong.
        timeout(request.headers())?;
        let decompress = decompress(request.headers())?;
        Ok(Self { body: request.into_body(), buffer: BytesMut::new(), decompress, max_size, of: PhantomData })
    }

    /// Returns the next message; none at the end of the request.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the next bytes are no message of type `R`, RESOURCE_EXHAUSTED if the message is too large,
    /// else what the body reports: it did not arrive in time, or the caller is gone.
    pub(crate) async fn next(&mut self) -> Result<Option<R>, Failure> {
        loop {
            if let Some(message) = self.take()? {
                return R::decode(message).map(Some).map_err(|error| {
                    Failure::malformed(format!("the request is not an encoded message of this method: {error}"))
                });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data()),
                Some(Err(error)) => return Err(broken_off(error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Failure::malformed("the call ends in the middle of a message")),
            }
        }
    }

    /// Takes a message out of the buffer, if there is a whole one.
    fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some((&[flag, len @ ..], rest)) = self.buffer.split_first_chunk::<5>() else { return Ok(None) };
        let len = u32::from_be_bytes(len) as usize;
        let decompress = match (flag, self.decompress) {
            (0, _) => None,
            (1, Some(decompress)) => Some(decompress),
            (1, None) => {
                return Err(Failure::malformed("the message is flagged as compressed, and grpc-encoding names no way"));
            }
            _ => {
                return Err(Failure::malformed(format!(
                    "the message is flagged with {flag}, which is neither 0 nor 1"
                )));
            }
        };
        if len > self.max_size {
            return Err(self.too_large());
        }
        if rest.len() < len {
            return Ok(None);
        }
        self.buffer.advance(5);
        let message = self.buffer.split_to(len).freeze();
        let Some(decompress) = decompress else { return Ok(Some(message)) };
        match decompress(&message, self.max_size) {
            Ok(message) if message.len() > self.max_size => Err(self.too_large()),
            Ok(message) => Ok(Some(message.into())),
            Err(_) => Err(Failure::malformed("the message cannot be decompressed in the way that grpc-encoding names")),
        }
    }

    fn too_large(&self) -> Failure {
        let message = format!("the request is larger than {} bytes", self.max_size);
        Failure::new(Reason::MessageTooLarge, message)
    }
}

/// Returns the failure of a call whose request ended with this error of its body.
fn broken_off(error: BoxError) -> Failure {
    match error.downcast() {
        Ok(failure) => *failure,
        Err(_transport) => Failure::new(Reason::Cancelled, "the call broke off before its message was there"),
    }
}

/// Returns how to decompress messages, if they may be compressed.
fn decompress(headers: &HeaderMap) -> Result<Option<Decompress>, Failure> {
    match single(headers, "grpc-encoding")?.map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(|message, most| {
            let mut decoder = GzDecoder::new(message);
            let bytes = up_to(most, &mut decoder)?;
            // The decoder stops at the end of what was compressed, and reads nothing behind that.
            let is_whole = bytes.len() > most || decoder.get_ref().is_empty();
            if is_whole { Ok(bytes) } else { Err(io::ErrorKind::InvalidData.into()) }
        })),
        Some(b"zstd") => Ok(Some(|message, most| {
            let mut decoder = zstd::Decoder::with_buffer(message)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            up_to(most, decoder)
        })),
        Some(other) => {
            let other = other.get(..MAX_NAME).unwrap_or(other).escape_ascii();
            let message = format!("requests may be compressed by gzip or zstd, not {other}");
            Err(Failure::new(Reason::UnknownEncoding, message))
        }
    }
}

/// Reads to the end, up to one byte more than this many.
fn up_to(most: usize, from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use proptest::prelude::*;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::proto::DescribeInstanceInformationRequest;

    /// What comes of a call whose body consists of these frames.
    fn read(frames: &[&[u8]], encoding: &str) -> Result<DescribeInstanceInformationRequest, Status> {
        let request = Request::builder().header("grpc-encoding", encoding).body(body(frames.concat())).unwrap();
        message(request, 1 << 20).now_or_never().unwrap().map_err(Status::from)
    }

    fn body(bytes: Vec<u8>) -> RequestBody {
        Full::new(bytes.into()).map_err(BoxError::from).boxed_unsync()
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
        for frames in [&[][..], &[&seven[..], &seven], &[&[0, 0, 0, 0, 1, 7]], &[&frame(2, &SEVEN)]] {
            assert_eq!(read(frames, "identity").unwrap_err().code(), Code::InvalidArgument, "{frames:?}");
        }
    }

    #[test]
    fn a_call_that_is_cut_off_anywhere_is_no_call() {
        let seven = frame(0, &SEVEN);
        for cut in 0..seven.len() {
            for before in [&[][..], &seven] {
                let status = read(&[before, &seven[..cut]], "identity");
                let is_whole = !before.is_empty() && cut == 0;
                assert_eq!(status.map_err(|status| status.code()).err(), (!is_whole).then_some(Code::InvalidArgument));
            }
        }
    }

    #[tokio::test]
    async fn messages_are_read_one_after_the_other_however_they_were_cut() {
        let bytes: Vec<u8> = [frame(0, &SEVEN), frame(1, &gzipped(&SEVEN)), frame(0, &[])].concat();
        for size in 1..=bytes.len() {
            let pieces: Vec<_> =
                bytes.chunks(size).map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
            let body = StreamBody::new(futures_util::stream::iter(pieces)).map_err(BoxError::from).boxed_unsync();
            let request = Request::builder().header("grpc-encoding", "gzip").body(body).unwrap();
            let mut messages = Messages::<DescribeInstanceInformationRequest>::new(request, 100).unwrap();
            for expected in [Some(7), Some(7), None] {
                assert_eq!(messages.next().await.unwrap().unwrap().max_results, expected);
            }
            assert_eq!(messages.next().await.unwrap(), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_one_message_or_an_error_of_the_callers(
            body in prop::collection::vec(prop_oneof![Just(0), Just(1), 0..=255u8], 0..40),
            encoding in prop::sample::select(vec!["identity", "gzip", "zstd"]),
        ) {
            if let Err(status) = read(&[&body], encoding) {
                prop_assert!([Code::InvalidArgument, Code::ResourceExhausted].contains(&status.code()), "{status:?}");
                prop_assert!(status.get_details_error_info().is_some());
            }
        }
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
    fn what_follows_a_compressed_message_is_not_ignored() {
        for behind in [&[0][..], &gzipped(&SEVEN)] {
            let status = read(&[&frame(1, &[&gzipped(&SEVEN), behind].concat())], "gzip").unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{behind:?}");
        }
        let trailing = frame(1, &[&zstd::encode_all(&SEVEN[..], 0).unwrap()[..], &[0]].concat());
        assert_eq!(read(&[&trailing], "zstd").unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn a_header_that_says_how_to_read_a_call_comes_once() {
        for (name, values) in [("grpc-timeout", ["1S", "1S"]), ("grpc-encoding", ["identity", "gzip"])] {
            let request = Request::builder().header(name, values[0]).header(name, values[1]);
            let request = request.body(body(frame(0, &SEVEN))).unwrap();
            let outcome = message::<DescribeInstanceInformationRequest>(request, 100).now_or_never().unwrap();
            let status = Status::from(outcome.unwrap_err());
            assert_eq!(status.code(), Code::InvalidArgument, "{name}");
            assert_eq!(status.get_details_error_info().unwrap().reason, "MALFORMED_REQUEST");
        }
    }

    #[test]
    fn a_few_bytes_of_zstd_do_not_take_a_window_of_128_mebibytes() {
        let zstd_with_window = |log| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(log).unwrap();
            std::io::Write::write_all(&mut encoder, &SEVEN).unwrap();
            frame(1, &encoder.finish().unwrap())
        };
        assert_eq!(read(&[&zstd_with_window(23)], "zstd").unwrap().max_results, Some(7));
        assert_eq!(read(&[&zstd_with_window(27)], "zstd").unwrap_err().code(), Code::InvalidArgument);
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
