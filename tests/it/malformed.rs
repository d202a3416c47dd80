//! What is no call, or no call of a method: sent over a real socket by a client of HTTP/2 that knows no gRPC, to every method that there is.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http2, header::HeaderMap};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::MethodDescriptor;
use ssm_gateway::proto;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    http::metrics,
    program::Program,
    proofs::Folder,
    support::{simulated, simulator_of, within},
};

/// A connection that sends whatever it is given.
struct Client(http2::SendRequest<Full<Bytes>>);

struct Answer {
    status: u16,
    headers: HeaderMap,
    grpc: Option<Status>,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TokioIo::new(within(TcpStream::connect(addr)).await.unwrap());
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
        Answer { status: head.status.as_u16(), headers: head.headers, grpc }
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
    let mut client = Client::connect(gateway.addr).await;
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
    let counted = metrics.iter().filter(|(_, count)| **count > 0.0);
    let is_ours = |name: &str| name.contains("INTERNAL\"") || name.contains("UNKNOWN\"");
    assert!(counted.into_iter().all(|(name, _)| !is_ours(name)), "{metrics:#?}");
}

#[tokio::test]
async fn what_is_no_call_of_grpc_has_an_http_status_and_is_counted_as_no_call() {
    let (gateway, _simulator) = simulated(1).await;
    let mut client = Client::connect(gateway.addr).await;
    for path in methods().into_iter().map(|(path, _)| path).chain(["/".to_owned(), "/metrics".to_owned()]) {
        for method in ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"] {
            let answer = client.send(method, &path, &[GRPC], &[0; 5]).await;
            assert_eq!((answer.status, answer.headers["allow"].as_bytes()), (405, &b"POST"[..]), "{method} {path}");
        }
        for content_type in ["application/json", "application/grpc-web+proto", "application/connect+proto", ""] {
            let answer = client.send("POST", &path, &[("content-type", content_type)], &[0; 5]).await;
            assert_eq!(
                (answer.status, answer.headers["accept-post"].as_bytes()),
                (415, &b"application/grpc"[..]),
                "{content_type} {path}"
            );
        }
        assert_eq!(client.send("POST", &path, &[], &[0; 5]).await.status, 415);
    }
    let metrics = metrics(gateway.admin).await;
    assert!(metrics.keys().all(|name| !name.starts_with("rpc_server_call_duration_seconds_count")), "{metrics:#?}");
    for content_type in ["application/grpc+proto", "application/grpc;a=b"] {
        let path = "/grpc.health.v1.Health/Check";
        let answer = client.send("POST", path, &[("content-type", content_type)], &[0; 5]).await;
        assert_eq!(answer.grpc.unwrap().code(), Code::Ok, "{content_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_of_grpc_leaves_a_line_at_debug_and_none_of_what_it_sent() {
    let (simulator, folder) = (simulator_of(1).await, Folder::new());
    let config = "[log]\nformat = 'json'\nfilter = 'info,ssm_gateway=debug'\n";
    let program = Program::in_front_of(&simulator, &folder, config, "127.0.0.1:0", "");
    let mut client = Client::connect(program.addr).await;
    assert_eq!(client.send("POST", "/secret", &[("content-type", "text/secret")], b"secret").await.status, 415);
    assert_eq!(client.send("SECRET", "/secret?secret", &[("x-secret", "secret")], b"secret").await.status, 405);
    let log = program.stop();
    let lines = log.lines().filter(|line| line.contains("rejected a request that is no gRPC call"));
    let statuses: Vec<_> =
        lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["status"].clone()).collect();
    assert_eq!(statuses, [415, 405], "{log}");
    assert!(!log.to_lowercase().contains("secret") && !log.contains("call ended"), "{log}");
}
