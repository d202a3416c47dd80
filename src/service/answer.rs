//! Answers below tonic's codec: pages go from memory to the socket by reference, neither decoded nor encoded nor
//! copied. A message on the wire is a five-byte prefix (not compressed, length) and its bytes
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost::Message;
use tokio::time::Instant;

use super::compress::{Compression, ENCODING};
use crate::{
    grpc::{self, Body, Failure, message_head},
    read::{Page, ReadClock},
};

/// Answers up to this size are copied into one piece, which costs less than another frame.
const COPIED: usize = 4096;
/// The size of the pieces that are offered to hyper: HTTP/2's smallest maximal frame size, so that pieces cause no
/// additional frames, and each piece that the caller takes is noticed.
const PIECE: usize = 16 << 10;

/// An encoded answer of either RPC, cut into what is sent at a time.
pub(super) struct Answer(VecDeque<Bytes>);

/// The further answers of a stream.
pub(super) struct Answers {
    pub(super) stream: BoxStream<'static, Result<Answer, Failure>>,
    /// When the caller last took something.
    pub(super) clock: Arc<ReadClock>,
}

/// The body of a call's response.
struct AnswerBody {
    /// The rest of the current answer.
    frames: VecDeque<Bytes>,
    /// The answers that follow; none after the last one.
    more: Option<Answers>,
    compression: Option<Compression>,
}

impl Answer {
    /// Builds an answer from a page, with the cursor behind it in the field of this number if there is one, and a
    /// message that holds all other fields.
    pub(super) fn new(page: Page, cursor: Option<u32>, rest: &impl Message) -> Self {
        let Page { records: mut parts, cursor: text, .. } = page;
        let field = cursor.map(|field| (field, text.len()));
        // An empty frame would be sent like any other.
        if cursor.is_some() && !text.is_empty() {
            parts.push_front(text);
        }
        let head = message_head(rest, field, parts.iter().map(Bytes::len).sum());
        parts.push_front(head.into());
        Self::ready(parts)
    }

    /// Builds an answer that is a message without records.
    pub(super) fn message(message: &impl Message) -> Self {
        Self([message_head(message, None, 0).into()].into())
    }

    /// Builds an answer from the parts of an encoded message, whose head [`message_head`] wrote.
    pub(super) fn ready(parts: VecDeque<Bytes>) -> Self {
        let is_small = parts.len() > 1 && parts.iter().map(Bytes::len).sum::<usize>() <= COPIED;
        if is_small {
            Self([parts.iter().map(|part| &**part).collect::<Vec<_>>().concat().into()].into())
        } else {
            Self(parts)
        }
    }

    /// Returns the response that consists of this answer and those that follow it.
    pub(super) fn into_http(self, more: Option<Answers>, compression: Option<Compression>) -> http::Response<Body> {
        let body = AnswerBody { frames: self.compressed(compression).0, more, compression };
        let mut response = grpc::response(body.boxed_unsync());
        if let Some(compression) = compression {
            response.headers_mut().insert(ENCODING, compression.name());
        }
        response
    }

    fn compressed(self, compression: Option<Compression>) -> Self {
        let pieces = self.0.iter().map(|piece| &**piece);
        let compressed = compression.and_then(|compression| compression.compress(pieces));
        compressed.map_or(self, |message| Self([message.into()].into()))
    }
}

/// Shows the size alone: records contain addresses and host names.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} bytes)", self.0.iter().map(Bytes::len).sum::<usize>())
    }
}

impl AnswerBody {
    /// Returns the next piece of the current answer. hyper asks for it, so the peer has taken the piece before.
    fn next_piece(&mut self) -> Option<Bytes> {
        let frame = self.frames.front_mut()?;
        let piece = frame.split_to(frame.len().min(PIECE));
        if frame.is_empty() {
            self.frames.pop_front();
        }
        if let Some(answers) = &self.more {
            answers.clock.note(Instant::now());
        }
        Some(piece)
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if let Some(piece) = self.next_piece() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(answers) = &mut self.more else { return Poll::Ready(None) };
            match std::task::ready!(answers.stream.as_mut().poll_next(cx)) {
                Some(Ok(answer)) => self.frames = answer.compressed(self.compression).0,
                Some(Err(failure)) => {
                    self.more = None;
                    return Poll::Ready(Some(Err(failure)));
                }
                None => self.more = None,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.more.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        grpc::{PREFIX, Reason},
        model::RecordsBuilder,
        proto::{InstanceInformation, StreamInstanceInformationResponse as Message_},
        read::{Head, Provenance, Rendered, Served},
    };
    use bytes::BytesMut;
    use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
    use proptest::prelude::*;

    const RESUME_TOKEN: u32 = 19;

    /// A page of these records, each with `padding` bytes more, that ends at this cursor.
    fn page(ids: &[&str], cursor: &str, padding: usize) -> Page {
        let record = |id: &&str| {
            let instance_id = Some((*id).to_owned());
            let name = Some("x".repeat(padding));
            let node = InstanceInformation { instance_id, name, ..Default::default() };
            Message_ { instance_information_list: vec![node], ..Default::default() }.encode_to_vec().into()
        };
        let records = ids.iter().map(record).collect();
        let provenance = Provenance {
            as_of: SystemTime::now(),
            age: Duration::ZERO,
            max_age: Duration::ZERO,
            is_stale: false,
            served: Served::Hit,
            is_forced: false,
        };
        Page { records, cursor: Bytes::from(cursor.to_owned()), rendered: None, provenance, aws_request_id: None }
    }

    fn answer(ids: &[&str]) -> Answer {
        Answer::new(page(ids, "t", 0), Some(RESUME_TOKEN), &rest(""))
    }

    /// The other fields of a message.
    fn rest(target: &str) -> Message_ {
        Message_ { target: target.to_owned(), ..Default::default() }
    }

    fn more(stream: impl Stream<Item = Result<Answer, Failure>> + Send + 'static) -> Answers {
        Answers { stream: stream.boxed(), clock: Arc::default() }
    }

    /// What a client sees: the messages, and the failure after them.
    fn received(response: http::Response<Body>) -> (Vec<Message_>, Option<Failure>) {
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        let mut failure = None;
        while let Some(frame) = body.frame().now_or_never().unwrap() {
            match frame {
                Ok(frame) => bytes.extend(frame.into_data().unwrap()),
                Err(failed) => failure = Some(failed),
            }
        }
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let prefix = bytes.split_to(PREFIX);
            assert_eq!(prefix[0], 0, "not compressed");
            let len = u32::from_be_bytes(prefix[1..].try_into().unwrap());
            messages.push(Message_::decode(bytes.split_to(len as usize)).unwrap());
        }
        (messages, failure)
    }

    fn ids(message: &Message_) -> Vec<&str> {
        message.instance_information_list.iter().map(InstanceInformation::instance_id).collect()
    }

    #[test]
    fn an_answer_is_its_page_and_its_other_fields() {
        let answer = Answer::new(page(&["a", "b"], "cursor", 0), Some(RESUME_TOKEN), &rest("t"));
        let (messages, failure) = received(answer.into_http(None, None));
        let message = &messages[0];
        assert_eq!((messages.len(), ids(message)), (1, vec!["a", "b"]));
        assert_eq!((&*message.target, &*message.resume_token), ("t", "cursor"));
        assert!(failure.is_none());
    }

    #[test]
    fn a_stream_is_message_after_message_and_ends_with_its_failure() {
        let gone = Failure::new(Reason::ListingExpired, "gone");
        let answers = [Ok(answer(&["b"])), Ok(answer(&["c"])), Err(gone), Ok(answer(&["never"]))];
        let (messages, failure) = received(answer(&["a"]).into_http(Some(more(stream::iter(answers))), None));
        assert_eq!(messages.iter().flat_map(ids).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(failure.unwrap().own_reason(), Some(Reason::ListingExpired));
    }

    #[test]
    fn what_is_large_is_not_copied_and_what_is_small_is_one_piece() {
        let large = page(&["a", "b"], "t", COPIED);
        let answer = Answer::new(large.clone(), Some(RESUME_TOKEN), &rest(""));
        let sent: Vec<_> = answer.0.iter().skip(2).map(|bytes| bytes.as_ptr()).collect();
        assert_eq!(sent, large.records.iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>());
        assert_eq!(Answer::new(page(&["a", "b"], "t", 0), None, &rest("")).0.len(), 1);
    }

    #[test]
    fn a_page_whose_head_was_written_before_is_an_answer_as_it_stands() {
        let mut records = RecordsBuilder::default();
        for id in ["a", "b"] {
            let node = InstanceInformation { instance_id: Some(id.to_owned()), ..Default::default() };
            records.push(&node.encode_to_vec());
        }
        let records = records.build();
        let following = "cursor".len() + records.slice(0..2).len();
        let head = message_head(&rest("t"), Some((RESUME_TOKEN, "cursor".len())), following);
        let (rendered, _) = Rendered::new(&[Head::before_cursor::<Message_>(head)], "cursor", &records);
        let (messages, _) = received(Answer::ready(rendered.message::<Message_>().unwrap()).into_http(None, None));
        assert_eq!((messages.len(), ids(&messages[0]), &*messages[0].target), (1, vec!["a", "b"], "t"));
        assert_eq!(messages[0].resume_token, "cursor");
    }

    #[test]
    fn a_body_waits_for_what_is_still_to_come_and_ends_once() {
        let mut body = answer(&[]).into_http(Some(more(stream::pending())), None).into_body();
        assert!(body.frame().now_or_never().unwrap().unwrap().unwrap().is_data());
        assert!(body.frame().now_or_never().is_none());
        let mut body = answer(&[]).into_http(None, None).into_body();
        let frames = [(); 3].map(|()| body.frame().now_or_never().unwrap());
        assert!(matches!(&frames, [Some(Ok(data)), None, None] if data.is_data()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_is_handed_out_in_pieces_each_of_which_shows_that_the_one_before_was_taken() {
        let answers = more(stream::pending());
        let clock = Arc::clone(&answers.clock);
        let large = Answer::new(page(&["a"], "t", 3 * PIECE), Some(RESUME_TOKEN), &rest(""));
        let mut body = large.into_http(Some(answers), None).into_body();
        let mut pieces = 0;
        while let Some(frame) = body.frame().now_or_never() {
            assert!(frame.unwrap().unwrap().into_data().unwrap().len() <= PIECE);
            assert_eq!(clock.at(), Some(Instant::now()));
            tokio::time::advance(Duration::from_secs(1)).await;
            pieces += 1;
        }
        assert_eq!(pieces, 6, "the head, the cursor, and a little more than three");
    }

    #[test]
    fn debug_output_shows_no_record() {
        assert_eq!(format!("{:?}", answer(&["i-secret"])), "Answer(23 bytes)");
    }

    proptest! {
        #[test]
        fn any_answers_are_received_as_they_were_sent(
            sent in prop::collection::vec(
                (prop::collection::vec("[a-z]{0,300}", 0..5), "[a-z]{0,9}", any::<bool>(), prop_oneof![Just(0), Just(2000usize)]),
                1..5,
            ),
        ) {
            let mut answers = sent.iter().map(|(ids, cursor, has_cursor, padding)| {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                Answer::new(page(&ids, cursor, *padding), has_cursor.then_some(RESUME_TOKEN), &rest("x"))
            });
            let first = answers.next().unwrap();
            let more: Vec<_> = answers.map(Ok).collect();
            let (messages, _) = received(first.into_http(Some(self::more(stream::iter(more))), None));
            let got: Vec<_> = messages.iter().map(|message| (ids(message), &*message.resume_token)).collect();
            let sent: Vec<(Vec<&str>, &str)> = sent
                .iter()
                .map(|(ids, cursor, has_cursor, _)| {
                    (ids.iter().map(String::as_str).collect(), if *has_cursor { &**cursor } else { "" })
                })
                .collect();
            prop_assert_eq!(got, sent);
            prop_assert!(messages.iter().all(|message| message.target == "x"));
        }
    }
}
