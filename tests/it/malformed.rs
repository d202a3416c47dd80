//! What is no call, or no call of a method: sent over a real socket by a client of HTTP/2 that knows no gRPC, to every method that there is.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::MethodDescriptor;
use ssm_gateway::proto;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    http::metrics,
    support::{Gateway, simulated, within},
};

/// A connection that sends whatever it is given.
struct Client(http2::SendRequest<Full<Bytes>>);

struct Answer {
    status: u16,
    grpc: Option<Status>,
}

impl Client {
    async fn connect(gateway: &Gateway) -> Self {
        let stream = TokioIo::new(within(TcpStream::connect(gateway.addr)).await.unwrap());
        let (client, connection) = within(http2::handshake(TokioExecutor::new(), stream)).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://gateway{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let (head, body) = within(self.0.send_request(request)).await.unwrap().into_parts();
        let trailers = within(body.collect()).await.unwrap().trailers().cloned().unwrap_or_default();
        let grpc = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(&trailers));
        Answer { status: head.status.as_u16(), grpc }
    }
}

/// Every method of every service.
fn methods() -> Vec<(String, MethodDescriptor)> {
    let described = proto::descriptors(&[
        proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ]);
    let services: Vec<_> = described.unwrap().services().collect();
    let methods = services.iter().flat_map(|service| {
        let path = |method: MethodDescriptor| (format!("/{}/{}", service.full_name(), method.name()), method);
        service.methods().map(path).collect::<Vec<_>>()
    });
    methods.collect()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// What is wrong with a request, its headers, its body.
type Malformed = (&'static str, &'static [(&'static str, &'static str)], &'static [u8]);

/// What is no request of any method.
const MALFORMED: [Malformed; 10] = [
    ("a prefix that breaks off", &[], &[0, 0, 0]),
    ("a prefix and nothing", &[], &[0, 0, 0, 0, 3]),
    ("a message that breaks off", &[], &[0, 0, 0, 0, 3, 10]),
    ("a message, and half of another one", &[], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 3]),
    ("bytes that are not protobuf", &[], &[0, 0, 0, 0, 3, 10, 5, 1]),
    ("a flag without an encoding", &[], &[1, 0, 0, 0, 0]),
    ("a flag that nobody knows", &[], &[2, 0, 0, 0, 0]),
    ("what is not gzip", &[("grpc-encoding", "gzip")], &[1, 0, 0, 0, 3, 10, 1, 1]),
    ("what is not zstd", &[("grpc-encoding", "zstd")], &[1, 0, 0, 0, 3, 10, 1, 1]),
    ("a deadline that is none", &[("grpc-timeout", "soon")], &[0; 5]),
];

#[tokio::test]
async fn what_is_no_request_is_the_callers_mistake_whatever_the_method() {
    let (gateway, _simulator) = simulated(1).await;
    let mut client = Client::connect(&gateway).await;
    for (path, method) in methods() {
        let counted: [Malformed; 2] = [("no message", &[], &[]), ("two messages", &[], &[0; 10])];
        let is_one = !method.is_client_streaming();
        for (what, headers, body) in MALFORMED.iter().chain(counted.iter().filter(|_| is_one)) {
            let answer = client.send("POST", &path, &[&[GRPC], *headers].concat(), body).await;
            let status = answer.grpc.unwrap_or_else(|| panic!("{what} to {path} has no status"));
            let info = status.get_details_error_info().unwrap_or_else(|| panic!("{what} to {path}: {status:?}"));
            assert_eq!(
                (answer.status, status.code(), &*info.reason, &*info.domain),
                (200, Code::InvalidArgument, "MALFORMED_REQUEST", "ssm-gateway"),
                "{what} to {path}"
            );
        }
        if !is_one {
            // A stream may be as short, and as long, as its caller likes.
            for (_, headers, body) in counted {
                let answer = client.send("POST", &path, &[&[GRPC], headers].concat(), body).await;
                assert_eq!(answer.grpc.unwrap().code(), Code::Ok, "{path}");
            }
        }
    }
    let metrics = metrics(gateway.admin).await;
    assert!(metrics.keys().all(|name| !name.contains("INTERNAL\"") && !name.contains("UNKNOWN\"")), "{metrics:#?}");
}
