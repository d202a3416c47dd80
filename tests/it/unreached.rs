//! What the commands say of a gateway that they cannot reach: a sentence each, with what to do.

use std::{
    net::SocketAddr,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{
    program::SSM_GATEWAY,
    proofs::{Authority, Folder, Issued},
    support::simulated,
    tls::secured,
};

/// Accepts TLS with this certificate, and says nothing.
async fn tls_server(issued: &Issued) -> SocketAddr {
    let cert = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, socket) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            tokio::spawn(acceptor.accept(stream));
        }
    });
    addr
}

/// Answers every connection with this, and closes it.
async fn server_of(answer: &'static [u8]) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
    });
    addr
}

/// Speaks HTTP/2, and knows no path.
async fn http2_server() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let stream = TokioIo::new(socket.accept().await.unwrap().0);
            let answer = service_fn(async |_| {
                let body = Empty::<Bytes>::new();
                Response::builder().status(404).body(body)
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, answer));
        }
    });
    addr
}

/// A certificate that signs itself, as `openssl req -x509` makes them.
fn self_signed() -> Issued {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "myself");
    let key = KeyPair::generate().unwrap();
    Issued { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// Checks that every command that calls fails with this.
fn check(folder: &Folder, server: &str, flags: &str, sentence: &str) {
    for command in ["targets", "health", "list"] {
        check_one(command, folder, server, flags, sentence);
    }
}

fn check_one(command: &str, folder: &Folder, server: &str, flags: &str, sentence: &str) {
    let mut program = Command::new(SSM_GATEWAY);
    program.args([command, "--timeout", "30s", "--server", server]).args(flags.split_whitespace());
    let output = program.current_dir(folder.path("")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{command} {server} {flags}: {stderr}");
    assert!(stderr.contains(sentence), "{command} {server} {flags}: {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_than_the_one_that_was_asked_for_is_named() {
    let (plain, _simulator) = simulated(1).await;
    let (tls, secured, _simulator) = secured(1, false).await;
    let (plain, tls) = (plain.addr, tls.addr.port());
    let check = |server: &str, sentence: &str| check(&secured.folder, server, "", sentence);
    check(&format!("http://localhost:{tls}"), "if the server uses TLS, use https://");
    check(&format!("https://{plain}"), "the connection was closed: does the server use TLS? If not, use http://");
    let other = http2_server().await;
    check(&format!("http://{other}"), "the server is not a gateway (HTTP status code 404): is the address right?");
    let http = server_of(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
    check(&format!("http://{http}"), "use https://");
    check(&format!("https://{http}"), "does not speak TLS");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", silent.local_addr().unwrap());
    check_one("list", &secured.folder, &server, "", "the TLS handshake timed out");
    let mute = server_of(b"").await;
    check(&format!("http://{mute}"), "the connection was closed: if the server uses TLS, use https://");
    check(&format!("https://{mute}"), "the connection was closed: does the server use TLS? If not, use http://");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_that_is_said() {
    let folder = Folder::new();
    check(&folder, "http://127.0.0.1:1", "", "could not reach a gateway at http://127.0.0.1:1: nothing listens there");
    check(&folder, "https://127.0.0.1:1", "", "nothing listens there (connection refused): is the gateway running");
    check(&folder, "unix:nowhere", "", "there is no such socket");
    check(&folder, "http://nowhere.invalid:1", "", "the host name cannot be resolved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_accepted_is_said_to_be_what_it_is() {
    let (folder, authority) = (Folder::new(), Authority::new());
    folder.write("ca.pem", authority.pem());
    folder.write("other.pem", Authority::new().pem());
    let own = self_signed();
    folder.write("own.pem", &own.cert);
    let past = SystemTime::now() - Duration::from_hours(1);
    let names: Vec<String> = (0..20).map(|number| format!("host-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = tls_server(&authority.issue(&names)).await.port();
    let good = tls_server(&authority.issue(&["localhost"])).await.port();
    let expired = tls_server(&authority.issue_until(&["localhost"], past)).await.port();
    let own = tls_server(&own).await.port();
    for (server, flags, sentence) in [
        (
            format!("localhost:{good}"),
            "",
            "no trusted authority has signed the server's certificate: give the authority's certificate with --tls-ca",
        ),
        (
            format!("localhost:{good}"),
            "--tls-ca other.pem",
            "no trusted authority has signed the server's certificate: give the authority's certificate",
        ),
        (
            format!("127.0.0.1:{good}"),
            "--tls-ca ca.pem",
            "the server's certificate is not for 127.0.0.1 but for localhost: use a name",
        ),
        (
            format!("localhost:{many}"),
            "--tls-ca ca.pem",
            "but for host-0, host-1, host-2, host-3, host-4 and others: use",
        ),
        (format!("localhost:{expired}"), "--tls-ca ca.pem", "the server's certificate has expired: renew it"),
        (format!("localhost:{own}"), "--tls-ca own.pem", "the server's certificate is an authority's own (CA:TRUE)"),
    ] {
        check(&folder, &format!("https://{server}"), flags, sentence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_caller_that_is_missing_or_refused_is_said_to_be() {
    let (mutual, secured, _simulator) = secured(1, true).await;
    let other = Authority::new().issue(&["spiffe://acme/person"]);
    secured.folder.write("other.pem", other.cert);
    secured.folder.write("other.key", other.key);
    let server = format!("https://localhost:{}", mutual.addr.port());
    // In TLS 1.3 the refusal comes after the handshake, and may be overtaken by the end of the connection.
    for flags in ["--tls-ca ca.pem", "--tls-ca ca.pem --cert other.pem --key other.key"] {
        check(&secured.folder, &server, flags, "the connection to the gateway broke: ");
        check(&secured.folder, &server, flags, "--cert");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_address_that_is_none_is_said_to_be() {
    let (gateway, _simulator) = simulated(1).await;
    for command in ["top", "health"] {
        for (admin, sentence) in [
            (
                "127.0.0.1:1".to_owned(),
                "at 127.0.0.1:1: nothing listens there (connection refused): is the gateway running",
            ),
            (gateway.addr.to_string(), "the server speaks gRPC: is this the address of [admin]?"),
        ] {
            let output = Command::new(SSM_GATEWAY).args([command, "--admin", &format!("http://{admin}")]).output();
            let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
            assert!(stderr.lines().count() == 1 && stderr.contains(sentence), "{stderr}");
        }
    }
}
