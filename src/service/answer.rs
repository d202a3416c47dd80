//! Answers below tonic's codec: records go from upstream to the socket by reference, neither decoded nor encoded nor
//! copied. A message on the wire is a five-byte prefix (not compressed, length) and its bytes; a call's end is its
//! trailers (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::Frame;
use prost::Message;
use tonic::{Status, body::Body};

const PREFIX: usize = 5;

/// An encoded answer of either RPC, cut into what is sent at a time.
pub(super) struct Answer(VecDeque<Bytes>);

/// The further answers of a stream.
pub(super) type Answers = BoxStream<'static, Result<Answer, Status>>;

/// The body of a call's response.
struct AnswerBody {
    /// What is left of the current answer.
    frames: VecDeque<Bytes>,
    /// What comes after it; none when the trailers are sent.
    then: Option<Then>,
}

enum Then {
    End,
    More(Answers),
}

impl Answer {
    /// Builds an answer from encoded records and a message that holds all but the records: protobuf takes the parts of a
    /// message in any order, so that the small ones go along with the prefix.
    ///
    /// # Errors
    /// OUT_OF_RANGE if the length does not fit into the prefix.
    pub(super) fn new(records: Vec<Bytes>, rest: &impl Message) -> Result<Self, Status> {
        let rest_len = rest.encoded_len();
        let len = rest_len + records.iter().map(Bytes::len).sum::<usize>();
        let len = u32::try_from(len).map_err(|_too_long| Status::out_of_range("the answer is longer than 4 GiB"))?;
        let mut head = BytesMut::with_capacity(PREFIX + rest_len);
        head.put_u8(0);
        head.put_u32(len);
        rest.encode_raw(&mut head);
        let mut frames = VecDeque::with_capacity(1 + records.len());
        frames.push_back(head.freeze());
        frames.extend(records);
        Ok(Self(frames))
    }

    /// The response that consists of this answer and those that follow it.
    pub(super) fn into_http(self, more: Option<Answers>) -> http::Response<Body> {
        let then = Some(more.map_or(Then::End, Then::More));
        let mut response = http::Response::new(Body::new(AnswerBody { frames: self.0, then }));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

/// Tells the size alone: records hold addresses and host names.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} bytes)", self.0.iter().map(Bytes::len).sum::<usize>())
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(bytes) = self.frames.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let next = match &mut self.then {
                None => return Poll::Ready(None),
                Some(Then::End) => None,
                Some(Then::More(answers)) => std::task::ready!(answers.as_mut().poll_next(cx)),
            };
            let status = match next {
                Some(Ok(answer)) => {
                    self.frames = answer.0;
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.then = None;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.then.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;
    use crate::proto::{InstanceInformation, StreamInstanceInformationResponse as Message_};

    /// The records as a page gives them: encoded elements of the list.
    fn pieces(ids: &[&str]) -> Vec<Bytes> {
        let piece = |id: &&str| {
            let node = InstanceInformation { instance_id: Some((*id).to_owned()), ..Default::default() };
            Message_ { instance_information_list: vec![node], ..Default::default() }.encode_to_vec().into()
        };
        ids.iter().map(piece).collect()
    }

    fn rest(token: &str) -> Message_ {
        Message_ { resume_token: token.to_owned(), ..Default::default() }
    }

    /// What a client sees: the messages, and the trailers.
    fn received(response: http::Response<Body>) -> (Vec<Message_>, HeaderMap) {
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let body = response.into_body().collect().now_or_never().unwrap().unwrap();
        let trailers = body.trailers().unwrap().clone();
        let mut bytes = body.to_bytes();
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let prefix = bytes.split_to(PREFIX);
            assert_eq!(prefix[0], 0, "not compressed");
            let len = u32::from_be_bytes(prefix[1..].try_into().unwrap());
            messages.push(Message_::decode(bytes.split_to(len as usize)).unwrap());
        }
        (messages, trailers)
    }

    fn ids(message: &Message_) -> Vec<&str> {
        message.instance_information_list.iter().map(InstanceInformation::instance_id).collect()
    }

    #[test]
    fn an_answer_is_its_records_and_its_other_fields_then_the_trailers() {
        let answer = Answer::new(pieces(&["a", "b"]), &rest("t")).unwrap();
        let (messages, trailers) = received(answer.into_http(None));
        assert_eq!((messages.len(), ids(&messages[0]), &*messages[0].resume_token), (1, vec!["a", "b"], "t"));
        assert_eq!(trailers["grpc-status"], "0");
    }

    #[test]
    fn a_stream_is_message_after_message_and_ends_with_its_status() {
        let answer = |id| Answer::new(pieces(&[id]), &rest(""));
        let answers = [answer("b"), answer("c"), Err(Status::aborted("gone")), answer("never")];
        let (messages, trailers) = received(answer("a").unwrap().into_http(Some(stream::iter(answers).boxed())));
        assert_eq!(messages.iter().flat_map(ids).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::Aborted);
    }

    #[test]
    fn nothing_is_copied() {
        let pieces = pieces(&["a", "b"]);
        let answer = Answer::new(pieces.clone(), &rest("t")).unwrap();
        let sent: Vec<_> = answer.0.iter().skip(1).map(|bytes| bytes.as_ptr()).collect();
        assert_eq!(sent, pieces.iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>());
    }

    #[test]
    fn a_body_waits_for_what_is_still_to_come_and_ends_once() {
        let mut body =
            Answer::new(Vec::new(), &rest("")).unwrap().into_http(Some(stream::pending().boxed())).into_body();
        assert!(body.frame().now_or_never().unwrap().unwrap().unwrap().is_data());
        assert!(body.frame().now_or_never().is_none());
        let mut body = Answer::new(Vec::new(), &rest("")).unwrap().into_http(None).into_body();
        let frames = [(); 3].map(|()| body.frame().now_or_never().unwrap());
        assert!(matches!(&frames, [Some(Ok(data)), Some(Ok(end)), None] if data.is_data() && end.is_trailers()));
    }

    #[test]
    fn debug_output_shows_no_record() {
        let answer = Answer::new(pieces(&["i-secret"]), &rest("")).unwrap();
        assert_eq!(format!("{answer:?}"), "Answer(17 bytes)");
    }

    proptest! {
        #[test]
        fn any_answers_are_received_as_they_were_sent(
            sent in prop::collection::vec((prop::collection::vec("[a-z]{0,300}", 0..5), "[a-z]{0,9}"), 1..5),
        ) {
            let mut answers = sent.iter().map(|(ids, token)| {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                Answer::new(pieces(&ids), &rest(token))
            });
            let first = answers.next().unwrap().unwrap();
            let more: Vec<_> = answers.collect();
            let (messages, _) = received(first.into_http(Some(stream::iter(more).boxed())));
            let got: Vec<_> = messages.iter().map(|message| (ids(message), &*message.resume_token)).collect();
            let sent: Vec<(Vec<&str>, &str)> =
                sent.iter().map(|(ids, token)| (ids.iter().map(String::as_str).collect(), &**token)).collect();
            prop_assert_eq!(got, sent);
        }
    }
}
