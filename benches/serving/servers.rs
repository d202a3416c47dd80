//! What the gateway is held against, each in a process of its own: the floor, a bare tonic server that sends ready bytes
//! through its codec, and the common way, one that clones typed messages from memory. Neither has any middleware.

use std::{
    convert::Infallible,
    fs,
    future::ready,
    io,
    marker::PhantomData,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{future::BoxFuture, stream};
use http::{Request, Response};
use prost::Message;
use ssm_gateway::{
    proto::{
        DescribeInstanceInformationRequest, DescribeInstanceInformationResponse, StreamInstanceInformationRequest,
        StreamInstanceInformationResponse,
    },
    service::SERVICE_NAME,
};
use tonic::{
    Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// The answers that all servers give: a page, and the messages of a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    pub(crate) page: Bytes,
    pub(crate) stream: Vec<Bytes>,
}

impl Answers {
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = Vec::new();
        for answer in [&self.page].into_iter().chain(&self.stream) {
            file.put_u32(u32::try_from(answer.len()).unwrap_or(u32::MAX));
            file.put_slice(answer);
        }
        fs::write(path, file)
    }

    fn read(path: &str) -> io::Result<Self> {
        let mut file = Bytes::from(fs::read(path)?);
        let mut answers = Self::default();
        while file.remaining() > 4 {
            let len = file.get_u32() as usize;
            answers.stream.push(file.split_to(len));
        }
        answers.page = answers.stream.remove(0);
        Ok(answers)
    }
}

/// Serves until it is killed; `path` is where the answers were written.
pub(crate) async fn serve(role: &str, path: &str) {
    let Answers { page, stream } = Answers::read(path).unwrap();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
    eprintln!("listening addr={}", incoming.local_addr().unwrap());
    let mut server = Server::builder().max_concurrent_streams(256);
    let router = if role == "floor" {
        server.add_service(Bare::<_, _, Ready<_>, Ready<_>>::new(page, stream))
    } else {
        let page = DescribeInstanceInformationResponse::decode(page).unwrap();
        let stream = stream.into_iter().map(|answer| StreamInstanceInformationResponse::decode(answer).unwrap());
        server.add_service(Bare::<_, _, ProstCodec<_, _>, ProstCodec<_, _>>::new(page, stream.collect()))
    };
    router.serve_with_incoming(incoming).await.unwrap();
}

/// A service that answers from memory, each time with a clone, through tonic's codecs `P` and `S`.
struct Bare<A, B, P, S> {
    page: Arc<A>,
    stream: Arc<Vec<B>>,
    codecs: PhantomData<fn() -> (P, S)>,
}

impl<A, B, P, S> Bare<A, B, P, S> {
    fn new(page: A, stream: Vec<B>) -> Self {
        Self { page: Arc::new(page), stream: Arc::new(stream), codecs: PhantomData }
    }
}

impl<A, B, P, S> Clone for Bare<A, B, P, S> {
    fn clone(&self) -> Self {
        Self { page: Arc::clone(&self.page), stream: Arc::clone(&self.stream), codecs: PhantomData }
    }
}

impl<A, B, P, S> NamedService for Bare<A, B, P, S> {
    const NAME: &'static str = SERVICE_NAME;
}

impl<A, B, P, S> Service<Request<Body>> for Bare<A, B, P, S>
where
    A: Clone + Send + Sync + 'static,
    B: Clone + Send + Sync + 'static,
    P: Codec<Encode = A, Decode = DescribeInstanceInformationRequest> + Default + Send,
    S: Codec<Encode = B, Decode = StreamInstanceInformationRequest> + Default + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { page, stream, .. } = self.clone();
        Box::pin(async move {
            let response = if request.uri().path().ends_with("DescribeInstanceInformation") {
                let answer = service_fn(move |_| ready(Ok(tonic::Response::new(A::clone(&page)))));
                Grpc::new(P::default()).unary(answer, request).await
            } else {
                let answer = service_fn(move |_| {
                    let stream = Arc::clone(&stream);
                    let messages = (0..stream.len()).map(move |index| Ok::<_, Status>(stream[index].clone()));
                    ready(Ok(tonic::Response::new(stream::iter(messages))))
                });
                Grpc::new(S::default()).server_streaming(answer, request).await
            };
            Ok(response)
        })
    }
}

/// A codec whose answers are bytes.
struct Ready<R>(PhantomData<R>);

impl<R> Default for Ready<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default + 'static> Codec for Ready<R> {
    type Encode = Bytes;
    type Decode = R;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<R> Encoder for Ready<R> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, answer: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(answer);
        Ok(())
    }
}

impl<R: Message + Default> Decoder for Ready<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
