//! TLS, from both sides.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use ssm_gateway::{
    access::Method,
    proto::{
        DescribeInstanceInformationRequest, ListTargetsRequest, StreamInstanceInformationRequest,
        target_service_client::TargetServiceClient,
    },
    simulator::{self, Faults, Simulator},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        version,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    http::metrics,
    program::{Program, SSM_GATEWAY},
    proofs::{Authority, Issued, Secured, allow, token},
    raw::{GOAWAY, PREFACE, Raw, SETTINGS, frame},
    support::{Client, Gateway, config, simulator_of, within},
};

/// A gateway that speaks TLS, and lets everybody call who proves anything.
pub(crate) async fn secured(nodes: usize, require_client_cert: bool) -> (Gateway, Secured, Simulator) {
    let simulator = simulator_of(nodes).await;
    let secured = Secured::new();
    let mut config = config(&simulator.url());
    secured.configure(&mut config);
    config.edge.tls.as_mut().unwrap().require_client_cert = require_client_cert;
    config.auth.tokens = vec![token("ci")];
    config.allow = vec![allow("*", &[], &[]), allow("dns:nothing.internal", &[Method::ListTargets], &[])];
    let connect = async |addr: SocketAddr| secured.endpoint(addr.port(), Some("spiffe://acme/tests")).connect().await;
    (Gateway::serving(config, connect).await, secured, simulator)
}

/// A connection in this version, by hand.
async fn connect(
    port: u16,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    identity: Option<&Issued>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(port, authority, version, identity, &[b"h2", b"http/1.1"]).await
}

/// The same, by a client that speaks these protocols.
async fn connect_as(
    port: u16,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    identity: Option<&Issued>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[version]);
    let client = client.with_root_certificates(roots);
    let mut client = match identity {
        None => client.with_no_client_auth(),
        Some(Issued { cert, key }) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            client.with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, socket).await
}

/// A handshake of this version, and the certificate that was shown.
async fn handshake(
    port: u16,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<(ProtocolVersion, Vec<u8>, CertificateDer<'static>)> {
    let connection = connect(port, authority, version, None).await?;
    let (_, tls) = connection.get_ref();
    let shown = tls.peer_certificates().unwrap()[0].clone().into_owned();
    Ok((tls.protocol_version().unwrap(), tls.alpn_protocol().unwrap().to_vec(), shown))
}

#[tokio::test]
async fn tls_is_spoken_in_both_versions_that_are_safe_and_only_for_http2() {
    let (gateway, secured, _simulator) = secured(1, false).await;
    for (version, name) in [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)] {
        let (spoken, protocol, _) = within(handshake(gateway.addr.port(), &secured.authority, version)).await.unwrap();
        assert_eq!((spoken, &*protocol), (name, &b"h2"[..]));
    }
}

#[tokio::test]
async fn http1_in_tls_is_told_what_is_spoken_here() {
    let (gateway, secured, _simulator) = secured(1, false).await;
    let port = gateway.addr.port();
    let mut other = within(connect_as(port, &secured.authority, &version::TLS13, None, &[])).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(other.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 ") && answer.contains("gRPC over HTTP/2"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_the_port_is_no_failed_handshake_and_the_line_of_one_says_who_connected() {
    let secured = Secured::new();
    let mut program = program(&secured, "[[allow]]\nprincipal = '*'\n");
    for _ in 0..3 {
        drop(TcpStream::connect(program.addr).await.unwrap());
    }
    let mut wrong = TcpStream::connect(program.addr).await.unwrap();
    wrong.write_all(b"no TLS at all").await.unwrap();
    program.until("a TLS handshake failed");
    let samples = async || metrics(program.admin).await;
    within(async { while samples().await["ssm_gateway_connections"] > 0.0 {} }).await;
    assert!(samples().await["ssm_gateway_tls_handshake_failures_total"] == 1.0);
    let log = program.stop();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a TLS handshake failed")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&wrong.local_addr().unwrap().to_string()), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_waits_for_nothing_but_the_peer() {
    let (gateway, secured, _simulator) = secured(1, false).await;
    for version in [&version::TLS12, &version::TLS13] {
        // Where the machine is slow one of many is quick; where the kernel holds them back, none is.
        within(async {
            let mut took = Duration::MAX;
            while took >= Duration::from_millis(150) {
                let started = Instant::now();
                handshake(gateway.addr.port(), &secured.authority, version).await.unwrap();
                took = started.elapsed();
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_is_used_no_longer_than_its_certificate_lasts() {
    let (gateway, secured, _simulator) = secured(1, false).await;
    let soon = secured.authority.issue_until(&["spiffe://acme/brief"], SystemTime::now() + Duration::from_millis(6500));
    let connection = within(connect(gateway.addr.port(), &secured.authority, &version::TLS13, Some(&soon))).await;
    let mut raw = Raw(connection.unwrap());
    raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    assert!(within(raw.next_of(GOAWAY)).await.is_some(), "so that its client connects with a new one");
}

#[tokio::test]
async fn a_spiffe_id_names_a_caller_before_any_dns_name() {
    let (simulator, secured) = (simulator::Config::default().start().await.unwrap(), Secured::new());
    let both = secured.authority.issue(&["orders.internal", "spiffe://acme/orders"]);
    let mut config = config(&simulator.url());
    secured.configure(&mut config);
    config.allow = vec![allow("dns:*", &[], &[])];
    let connect = async |addr: SocketAddr| secured.endpoint_as(addr.port(), Some(&both)).connect().await;
    let gateway = Gateway::serving(config, connect).await;
    let status = gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap_err();
    assert_eq!(status.message(), "no rule of the gateway allows spiffe://acme/orders anything");
}

#[tokio::test]
async fn another_authority_of_callers_is_used_when_its_file_changes() {
    let (gateway, secured, _simulator) = secured(1, false).await;
    let other = Authority::new();
    let theirs = other.issue(&["spiffe://other/orders"]);
    let call = async || {
        let channel = secured.endpoint_as(gateway.addr.port(), Some(&theirs)).connect().await.ok()?;
        Client::new(channel).describe_instance_information(DescribeInstanceInformationRequest::default()).await.ok()
    };
    assert!(within(call()).await.is_none());
    secured.folder.write("ca.pem", [secured.authority.pem(), other.pem()].concat());
    within(async { while call().await.is_none() {} }).await;
}

#[tokio::test]
async fn a_certificate_of_somebody_elses_authority_or_of_another_time_is_refused() {
    let (gateway, secured, _simulator) = secured(1, false).await;
    let forged = Authority::new().issue(&["spiffe://acme/tests"]);
    let past = secured.authority.issue_until(&["spiffe://acme/tests"], SystemTime::now() - Duration::from_mins(1));
    for identity in [forged, past] {
        let endpoint = secured.endpoint_as(gateway.addr.port(), Some(&identity));
        // In TLS 1.3 a client is done before the server has looked.
        let called = async {
            let channel = endpoint.connect().await.ok()?;
            let mut client = Client::new(channel);
            client.describe_instance_information(DescribeInstanceInformationRequest::default()).await.ok()
        };
        assert!(within(called).await.is_none());
    }
}

#[tokio::test]
async fn who_shows_no_certificate_may_have_a_token_unless_certificates_are_required() {
    for require in [false, true] {
        let (gateway, secured, _simulator) = secured(1, require).await;
        let call = async {
            let channel = secured.endpoint(gateway.addr.port(), None).connect().await.ok()?;
            let request = crate::proofs::with_token(DescribeInstanceInformationRequest::default(), "ci-secret");
            Client::new(channel).describe_instance_information(request).await.ok()
        };
        assert_eq!(within(call).await.is_none(), require);
        assert!(gateway.describe(DescribeInstanceInformationRequest::default()).await.is_ok());
    }
}

/// What becomes of a call by the holder of a certificate for these names.
async fn call_as(port: u16, secured: &Secured, names: &[&str]) -> Result<(), tonic::Status> {
    let identity = secured.authority.issue(names);
    let channel = within(secured.endpoint_as(port, Some(&identity)).connect()).await.unwrap();
    let request = ListTargetsRequest::default();
    within(TargetServiceClient::new(channel).list_targets(request)).await.map(drop)
}

#[tokio::test]
async fn a_certificate_that_names_nobody_proves_nothing() {
    let (gateway, secured, _simulator) = secured(1, false).await;
    let status = call_as(gateway.addr.port(), &secured, &["https://acme/not-spiffe"]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.get_details_error_info().unwrap().metadata["cause"], "missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_proves_a_spiffe_id_only_if_it_has_one_that_is_valid_and_no_other_uri() {
    let secured = Secured::new();
    let program = program(&secured, "[[allow]]\nprincipal = '*'\n");
    let port = program.addr.port();
    for names in [
        &["spiffe://acme/orders"][..],
        &["spiffe://acme/orders", "orders.internal"],
        &["https://a/b", "orders.internal"],
    ] {
        call_as(port, &secured, names).await.unwrap();
    }
    for names in [
        &["spiffe://acme/orders", "spiffe://acme/admin"][..],
        &["spiffe://acme/orders", "https://acme/orders"],
        &["spiffe://acme/../x", "orders.internal"],
        &["spiffe://"],
        &["SPIFFE://acme/orders", "orders.internal"],
        &["spiffe://acme/orders?admin"],
    ] {
        let status = call_as(port, &secured, names).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{names:?}");
    }
    let log = program.stop();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a client certificate proves nobody")).collect();
    assert!(lines[0].contains("WARN") && lines[0].contains("an X509-SVID has one URI"), "{log}");
}

#[tokio::test]
async fn a_stream_ends_when_its_callers_certificate_expires() {
    let (gateway, secured, simulator) = secured(5000, false).await;
    simulator.set_faults(Faults { latency: Duration::from_millis(500), ..Faults::default() });
    // A certificate's times are whole seconds, downwards.
    let soon = secured.authority.issue_until(&["spiffe://acme/brief"], SystemTime::now() + Duration::from_millis(6500));
    let channel = within(secured.endpoint_as(gateway.addr.port(), Some(&soon)).connect()).await.unwrap();
    let request = StreamInstanceInformationRequest::default();
    let mut pages = within(Client::new(channel).stream_instance_information(request)).await.unwrap().into_inner();
    let status = loop {
        match within(pages.message()).await {
            Ok(page) => assert!(page.is_some(), "it ended by itself"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.get_details_error_info().unwrap().metadata["cause"], "expired");
}

/// Renews the certificate again and again under load, for so long and until so many calls were made and so many certificates were
/// shown.
async fn rotate(lasts: Duration, least_calls: usize, least_shown: usize) {
    let (gateway, secured, _simulator) = secured(200, false).await;
    let (secured, calls, is_over) =
        (Arc::new(secured), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let port = gateway.addr.port();
    // Calls on one connection, and calls each on a connection of its own.
    let mut loads = tokio::task::JoinSet::new();
    for is_new in [false, true, true, true] {
        let (secured, calls, is_over) = (Arc::clone(&secured), Arc::clone(&calls), Arc::clone(&is_over));
        let kept = gateway.client.clone();
        loads.spawn(async move {
            while !is_over.load(Relaxed) {
                let mut client = if is_new {
                    let channel = within(secured.endpoint(port, Some("spiffe://acme/tests")).connect()).await;
                    Client::new(channel.expect("no handshake fails"))
                } else {
                    kept.clone()
                };
                let request = StreamInstanceInformationRequest::default();
                let mut pages = within(client.stream_instance_information(request)).await.unwrap().into_inner();
                while within(pages.message()).await.unwrap().is_some() {}
                calls.fetch_add(1, Relaxed);
            }
        });
    }
    let (started, mut shown) = (Instant::now(), std::collections::HashSet::new());
    while started.elapsed() < lasts || calls.load(Relaxed) < least_calls || shown.len() < least_shown {
        secured.renew();
        time::sleep(Duration::from_millis(20)).await;
        let (.., certificate) = within(handshake(port, &secured.authority, &version::TLS13)).await.unwrap();
        shown.insert(certificate.to_vec());
    }
    is_over.store(true, Relaxed);
    while let Some(load) = within(loads.join_next()).await {
        load.expect("no call is dropped");
    }
    println!("{} calls, {} certificates", calls.load(Relaxed), shown.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_without_a_failed_handshake_or_a_dropped_call() {
    within(Box::pin(rotate(Duration::from_secs(2), 20, 5))).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn long_certificates_are_renewed_without_a_failed_handshake_or_a_dropped_call() {
    rotate(Duration::from_secs(30), 1000, 100).await;
}

/// The program with this configuration for TLS, in front of nothing.
fn program(secured: &Secured, more: &str) -> Program {
    let path = |name: &str| secured.folder.path(name).display().to_string();
    let content = format!(
        "[edge]\nlisten = '127.0.0.1:0'\nreload_interval = '5ms'\n[edge.tls]\ncert = '{}'\nkey = '{}'\nclient_ca = '{}'\n\
         [upstream]\nregion = 'us-east-1'\n{more}",
        path("cert.pem"),
        path("key.pem"),
        path("ca.pem")
    );
    let file = secured.folder.write("gateway.toml", content);
    let mut command = Command::new(SSM_GATEWAY);
    command.args(["serve", "--config"]).arg(file).stderr(std::process::Stdio::piped());
    Program::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_new_certificate_is_not_used_and_that_is_said() {
    let secured = Secured::new();
    let mut program = program(&secured, "[[allow]]\nprincipal = '*'\n");
    let port = program.addr.port();
    let before = within(handshake(port, &secured.authority, &version::TLS13)).await.unwrap().2;
    secured.folder.write("cert.pem", "not a certificate");
    program.until("the old ones stay in use");
    assert_eq!(within(handshake(port, &secured.authority, &version::TLS13)).await.unwrap().2, before);
    let other = Authority::new().issue(&["localhost"]);
    secured.folder.write("cert.pem", other.cert);
    program.until("its first certificate is not that of the key");
    assert_eq!(
        within(handshake(port, &secured.authority, &version::TLS13)).await.unwrap().2,
        before,
        "the key is another's"
    );
    secured.renew();
    program.until("are used from now on");
    assert_ne!(within(handshake(port, &secured.authority, &version::TLS13)).await.unwrap().2, before);
    assert!(!program.stop().contains("PRIVATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_file_of_certificates_is_dropped_at_a_reload() {
    let secured = Secured::new();
    let mut program = program(&secured, "[[allow]]\nprincipal = '*'\n");
    let (port, ours, other) = (program.addr.port(), secured.authority.pem(), Authority::new());
    let before = within(handshake(port, &secured.authority, &version::TLS13)).await.unwrap().2;
    let next = ours.lines().count() + 1;
    let trusted = ours.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let literal = other.pem().replace('\n', "\\n");
    let leaf = other.issue(&["a.internal"]).cert;
    for (second, reason) in
        [(trusted, "a TRUSTED"), (literal, "a backslash"), (leaf, "the certificate is not an authority's")]
    {
        secured.folder.write("ca.pem", ours.clone() + &second);
        program.until(&format!("ca.pem cannot be used: line {next}: {reason}"));
        assert_eq!(within(handshake(port, &secured.authority, &version::TLS13)).await.unwrap().2, before);
    }
    // And what is understood is used, the second authority as well, though no line ends between both.
    secured.folder.write("ca.pem", format!("\u{feff}{}{}", ours.trim_end(), other.pem()));
    program.until("are used from now on");
    let theirs = other.issue(&["spiffe://other/orders"]);
    let channel = within(secured.endpoint_as(port, Some(&theirs)).connect()).await.unwrap();
    within(TargetServiceClient::new(channel).list_targets(ListTargetsRequest::default())).await.unwrap();
}

fn client(secured: &Secured, command: &str, port: u16, flags: &[&str]) -> Output {
    let server = format!("https://localhost:{port}");
    let mut client = Command::new(SSM_GATEWAY);
    client.args([command, "--server", &server]).args(flags).current_dir(secured.folder.path(""));
    client.output().unwrap()
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_not_served_with() {
    let secured = Secured::new();
    let past = secured.authority.issue_until(&["localhost"], SystemTime::now() - Duration::from_mins(1));
    secured.folder.write("key.pem", past.key);
    secured.folder.write("cert.pem", past.cert);
    let mut config = config("http://127.0.0.1:1");
    secured.configure(&mut config);
    let error = ssm_gateway::app::App::build(config).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("cert.pem cannot be used: it is valid from"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_calls_can_prove_who_calls() {
    let (gateway, secured, _simulator) = secured(7, false).await;
    let me = secured.authority.issue(&["spiffe://acme/person"]);
    secured.folder.write("both.pem", [&*me.key, &*me.cert].concat());
    secured.folder.write("two.key", [&*me.key, &*me.key].concat());
    secured.folder.write("me.pem", me.cert);
    secured.folder.write("me.key", me.key);
    secured.folder.write("literal.pem", secured.authority.pem().replace('\n', "\\n"));
    secured.folder.write("token", "ci-secret\n");
    secured.folder.write("wrong", "wrong");
    let other = Authority::new().issue(&["spiffe://acme/person"]);
    secured.folder.write("other.pem", other.cert);
    secured.folder.write("other.key", other.key);
    let run = |command: &str, flags: &str| {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let output = client(&secured, command, gateway.addr.port(), &flags);
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    for proof in ["--cert me.pem --key me.key", "--cert both.pem --key both.pem", "--token-file token"] {
        let (code, printed) = run("list", &format!("--tls-ca ca.pem {proof} --output csv"));
        assert_eq!((code, printed.lines().count()), (Some(0), 8), "{printed}");
        assert_eq!(run("targets", &format!("--tls-ca ca.pem {proof}")).0, Some(0));
    }
    assert_eq!(run("health", "--tls-ca ca.pem"), (Some(0), "SERVING\n".to_owned()));
    for (flags, told) in [
        ("--tls-ca ca.pem", "the call has no credential"),
        ("--tls-ca ca.pem --token-file wrong", "no bearer token that the gateway knows"),
        ("--tls-ca me.pem", "me.pem cannot be used: line 1: the certificate is not an authority's"),
        ("--tls-ca literal.pem", "literal.pem cannot be used: line 1: a backslash inside a block"),
        ("--tls-ca ca.pem --cert me.key --key me.pem", "me.key cannot be used: line 1: a private key in"),
        ("--tls-ca ca.pem --cert me.pem --key two.key", ": a second private key"),
        ("--token-file token", "could not reach a gateway"),
        ("--tls-ca nothing.pem", "could not read the file that --tls-ca names: No such file"),
        ("--tls-ca ca.pem --token-file ca.pem", "ca.pem contains no bearer token"),
        ("--tls-ca ca.pem --cert other.pem --key other.key", "the connection to the gateway broke"),
    ] {
        let (code, printed) = run("targets", flags);
        assert_eq!(code, Some(1), "{flags}");
        assert!(printed.contains(told), "{flags}: {printed}");
    }
    assert_eq!(run("targets", "--cert me.pem").0, Some(2), "a certificate needs its key");
    let plain = |server: &str, flags: &[&str]| {
        let mut client = Command::new(SSM_GATEWAY);
        let output =
            client.args(["targets", "--server", server]).args(flags).current_dir(secured.folder.path("")).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    assert!(plain("http://127.0.0.1:1", &["--tls-ca", "ca.pem"]).contains("is a plaintext address"));
    assert!(plain("http://192.0.2.1:1", &["--token-file", "token"]).contains("others could read the token"));
}
