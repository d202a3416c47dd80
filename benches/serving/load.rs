//! The one client that loads every server: it counts bytes and does not decode them, so that the server's work shows.

use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use futures_util::future::join_all;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use crate::process::Process;

pub(crate) const DESCRIBE: &str = "/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";
pub(crate) const STREAM: &str = "/ssm_gateway.v1.InstanceInformationService/StreamInstanceInformation";

/// What the guarded gateway is sent.
const AUTHORIZATION: &str = "Bearer bench-secret";
/// The SHA-256 of that token.
pub(crate) const TOKEN_SHA256: &str = "0159438a9235d6abde38e49fb98944660d067d6b9b03d8a8f4ee4e522feb62cb";

/// What a round of calls came to.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// How long each call took.
    pub(crate) calls: Vec<Duration>,
    pub(crate) took: Duration,
}

/// Connections to one server.
#[derive(Clone)]
pub(crate) struct Load {
    channels: Vec<Channel>,
    path: PathAndQuery,
    request: Bytes,
    is_guarded: bool,
}

impl Load {
    pub(crate) async fn connect(
        server: &Process,
        connections: usize,
        path: &'static str,
        request: &impl Message,
    ) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
        let endpoint = endpoint.initial_stream_window_size(1 << 20).initial_connection_window_size(16 << 20);
        let channels = join_all((0..connections).map(|_| endpoint.connect())).await;
        Self {
            channels: channels.into_iter().map(Result::unwrap).collect(),
            path: PathAndQuery::from_static(path),
            request: request.encode_to_vec().into(),
            is_guarded: server.is_guarded,
        }
    }

    /// Keeps `concurrency` calls in flight on each connection for this long.
    pub(crate) async fn round(&self, concurrency: usize, time: Duration) -> Round {
        let started = Instant::now();
        let workers = self.channels.iter().cycle().take(self.channels.len() * concurrency).map(|channel| {
            let (load, channel) = (self.clone(), channel.clone());
            tokio::spawn(async move {
                let mut calls = Vec::new();
                while started.elapsed() < time {
                    let started = Instant::now();
                    load.call(&channel).await.unwrap();
                    calls.push(started.elapsed());
                }
                calls
            })
        });
        let calls = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
        Round { calls, took: started.elapsed() }
    }

    /// Makes one call after another as fast as it is given, `calls` at once, and gives the bytes that came.
    pub(crate) async fn burst(&self, calls: usize) -> usize {
        let calls = self.channels.iter().cycle().take(calls).map(|channel| {
            let (load, channel) = (self.clone(), channel.clone());
            tokio::spawn(async move { load.call(&channel).await.unwrap() })
        });
        join_all(calls).await.into_iter().flat_map(Result::unwrap).map(|message| message.len()).sum()
    }

    /// One call, and its messages undecoded.
    pub(crate) async fn call(&self, channel: &Channel) -> Result<Vec<Bytes>, Status> {
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(self.request.clone());
        if self.is_guarded {
            request.metadata_mut().insert("authorization", MetadataValue::from_static(AUTHORIZATION));
        }
        let mut answers = grpc.server_streaming(request, self.path.clone(), Undecoded).await?.into_inner();
        let mut messages = Vec::new();
        while let Some(message) = answers.message().await? {
            messages.push(message);
        }
        Ok(messages)
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channels[0]
    }
}

struct Undecoded;

impl Codec for Undecoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Undecoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(to, request);
        Ok(())
    }
}

impl Decoder for Undecoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
