//! Answers as ready bytes: records go from upstream to the socket without being decoded or encoded again.

use std::{fmt, marker::PhantomData};

use bytes::{BufMut as _, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::failure::Failure;

/// An encoded answer of either RPC: its records, then its other fields. Protobuf takes fields in any order.
#[derive(Clone)]
pub struct Answer {
    records: Vec<Bytes>,
    rest: Bytes,
}

impl Answer {
    /// Builds an answer from encoded records and a message that holds all but the records.
    pub(super) fn new(records: Vec<Bytes>, rest: &impl Message) -> Self {
        Self { records, rest: rest.encode_to_vec().into() }
    }
}

/// Tells the size alone: records hold addresses and host names.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.records.iter().map(Bytes::len).sum::<usize>() + self.rest.len();
        write!(f, "Answer({bytes} bytes)")
    }
}

/// Decodes protobuf requests, and sends [`Answer`]s as they are.
#[derive(Debug)]
pub struct AnswerCodec<R>(PhantomData<R>);

/// The encoding half of [`AnswerCodec`].
#[derive(Debug)]
pub struct AnswerEncoder;

/// The decoding half of [`AnswerCodec`].
#[derive(Debug)]
pub struct RequestDecoder<R>(PhantomData<R>);

impl<R> Default for AnswerCodec<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default + 'static> Codec for AnswerCodec<R> {
    type Encode = Answer;
    type Decode = R;
    type Encoder = AnswerEncoder;
    type Decoder = RequestDecoder<R>;

    fn encoder(&mut self) -> AnswerEncoder {
        AnswerEncoder
    }

    fn decoder(&mut self) -> RequestDecoder<R> {
        RequestDecoder(PhantomData)
    }
}

impl Encoder for AnswerEncoder {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        for part in answer.records.into_iter().chain([answer.rest]) {
            to.put(part);
        }
        Ok(())
    }
}

impl<R: Message + Default> Decoder for RequestDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(from).map(Some).map_err(|error| Failure::malformed(&error).into())
    }
}
