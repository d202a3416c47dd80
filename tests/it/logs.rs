//! What the program logs, and what it never tells.

use std::{process::Command, time::Duration};

use futures_util::future::join_all;
use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{self, FailureKind, Faults, Scope},
    telemetry::LogConfig,
};
use tokio::time;
use tonic::Code;

use crate::{
    http::{get, get_with, metrics},
    program::{AWS_SECRET, Program},
    proofs::{Folder, Issuer, sha256, with_token},
    support::{Client, failing, simulated, within},
    traces::Receiver,
};

/// Reads streams and pages as fast as it can, for as long as it lasts.
async fn call(addr: std::net::SocketAddr, token: &str) {
    let mut client = within(Client::connect(format!("http://{addr}"))).await.unwrap();
    loop {
        let request = with_token(DescribeInstanceInformationRequest::default(), token);
        let _answered = within(client.describe_instance_information(request)).await;
        let request = with_token(StreamInstanceInformationRequest::default(), token);
        if let Ok(pages) = within(client.stream_instance_information(request)).await {
            let mut pages = pages.into_inner();
            while let Ok(Some(_)) = within(pages.message()).await {}
        }
    }
}

/// All that a running program emits: its log at every level, its metrics, status, page and configuration, its spans.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_emitted_has_an_address_a_host_name_or_a_credential_in_it() {
    let (gateway, simulator) = simulated(200).await;
    let nodes = gateway.walk(DescribeInstanceInformationRequest::default()).await;
    let (receiver, folder) = (Receiver::start(), Folder::new());
    let config = format!(
        "[listing]\nttl = '0s'\nhold_off = '0s'\nmax_hold_off = '0s'\n[upstream]\nrequests_per_second = 1e6\n\
         external_id = 'external-secret'\n[[auth.tokens]]\nname = 'ci'\nsha256 = '{}'\n[[allow]]\nprincipal = 'token:ci'\n\
         [log]\nformat = 'json'\nfilter = 'trace'\n[trace]\nendpoint = '{}'\n",
        sha256("ci-secret"),
        receiver.url
    );
    let program = Program::in_front_of(&simulator, &folder, &config, "127.0.0.1:0", "");
    let (mut emitted, accept) = (String::new(), [("host", "127.0.0.1"), ("accept", "text/html")]);
    let faults = [FailureKind::Cut, FailureKind::MalformedJson, FailureKind::Throttling, FailureKind::AccessDenied];
    for faults in [Faults::default()].into_iter().chain(faults.map(failing)) {
        simulator.set_faults(faults);
        let callers = ["ci-secret", "ci-secret", "ci-secret", "wrong-secret"].map(|token| call(program.addr, token));
        // Each is timed out by the end of the fault, in the midst of what it does.
        let _timed_out = time::timeout(Duration::from_millis(300), join_all(callers)).await;
        for path in ["/metrics", "/status", "/config"] {
            emitted += &get(program.admin, path).await.1;
        }
        emitted += &get_with(program.admin, "/", &accept).await.1.1;
    }
    let log = program.stop();
    assert!(log.contains("call ended") && log.contains("AWS gave no page"), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "one JSON object a line");
    let spans = receiver.spans();
    // How many there are depends on how fast the machine is.
    for kind in [2, 3] {
        assert!(spans.iter().any(|span| span["kind"] == kind), "no span of kind {kind} among {}", spans.len());
    }
    emitted += &log;
    for span in &spans {
        emitted += &span.to_string();
    }
    // The program's own addresses are no node's.
    let secrets = ["ci-secret", "wrong-secret", "external-secret", AWS_SECRET];
    for secret in nodes.iter().flat_map(|node| [node.ip_address(), node.computer_name()]).chain(secrets) {
        assert!(secret.is_empty() || !emitted.contains(secret), "{secret} is told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_of_a_stream_says_how_many_of_its_targets_could_not_be_reached() {
    let (simulator, folder) = (simulator::Config::default().start().await.unwrap(), Folder::new());
    simulator.set_faults_of(Scope::new("123456789012", "eu-west-1"), failing(FailureKind::AccessDenied));
    let config = "[targets.a]\nregion = 'us-east-1'\n[targets.b]\nregion = 'eu-west-1'\n";
    let program = Program::in_front_of(&simulator, &folder, config, "127.0.0.1:0", "");
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    let both = StreamInstanceInformationRequest { targets: vec!["*".to_owned()], ..Default::default() };
    let mut pages = within(client.stream_instance_information(both)).await.unwrap().into_inner();
    while within(pages.message()).await.unwrap().is_some() {}
    drop((pages, client));
    let log = program.stop();
    let line = log.lines().find(|line| line.contains("call ended")).unwrap();
    assert!(line.contains("targets=2 unreachable=1 status=\"OK\""), "{line}");
}

const PANICS: &str = "SSM_GATEWAY_TEST_PANICS";

#[test]
fn a_panic_is_logged_by_its_place_and_not_by_its_words() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "logs::it_panics", "--ignored", "--nocapture"]).env(PANICS, "1");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("the program panicked"), "{told}");
    assert!(told.contains("tests/it/logs.rs:") && !told.contains("10.1.2.3"), "{told}");
}

#[test]
#[ignore = "a process of its own, for the test before it"]
fn it_panics() {
    if std::env::var_os(PANICS).is_some() {
        let _log = LogConfig::default().start().unwrap();
        std::thread::spawn(|| panic!("10.1.2.3 and all its records")).join().unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_is_a_warning_and_the_others_are_not_heard_where_only_warnings_are() {
    let (simulator, folder) = (simulator::Config::default().start().await.unwrap(), Folder::new());
    let config = "[log]\nfilter = 'warn,ssm_gateway::app=info'\nslow_call = '150ms'\n";
    let program = Program::in_front_of(&simulator, &folder, config, "127.0.0.1:0", "");
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    simulator.set_faults(Faults { latency: Duration::from_millis(200), ..Faults::default() });
    for _ in 0..2 {
        within(client.describe_instance_information(DescribeInstanceInformationRequest::default())).await.unwrap();
    }
    drop(client);
    let log = program.stop();
    let ended: Vec<&str> = log.lines().filter(|line| line.contains("call ended")).collect();
    assert_eq!(ended.len(), 1, "{log}");
    assert!(ended[0].contains("WARN") && ended[0].contains("slow call ended") && ended[0].contains("miss"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_and_why_a_call_is_refused_is_logged_and_no_credential_is() {
    let (simulator, folder) = (simulator::Config::default().start().await.unwrap(), Folder::new());
    let (issuer, stranger) = (Issuer::new("one"), Issuer::new("one"));
    let jwks = folder.write("jwks.json", issuer.jwks());
    let ci = sha256("ci-secret");
    let config = format!(
        "[[auth.tokens]]\nname = 'ci'\nsha256 = '{ci}'\n[auth.jwt]\njwks = '{}'\nissuer = 'https://issuer'\n\
         audiences = ['ssm-gateway']\n[[allow]]\nprincipal = 'token:ci'\n[log]\nfilter = 'trace'\n",
        jwks.display()
    );
    let program = Program::in_front_of(&simulator, &folder, &config, "127.0.0.1:0", "");
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    let (known, unknown) = (issuer.token("alice", |_, _| {}), stranger.token("alice", |_, _| {}));
    let tokens = ["ci-secret", "wrong-secret", &known, &unknown];
    let mut codes = Vec::new();
    for token in tokens {
        let request = with_token(DescribeInstanceInformationRequest::default(), token);
        codes.push(
            within(client.describe_instance_information(request))
                .await
                .map_or_else(|status| status.code(), |_| Code::Ok),
        );
    }
    assert_eq!(codes, [Code::Ok, Code::Unauthenticated, Code::PermissionDenied, Code::Unauthenticated]);
    drop(client);
    let log = program.stop();
    let ended: Vec<&str> = log.lines().filter(|line| line.contains("call ended")).collect();
    for (line, parts) in ended.iter().zip([
        &["principal=\"token:ci\"", "status=\"OK\""][..],
        &["reason=\"UNAUTHENTICATED\"", "cause=\"unknown\""],
        &["principal=\"jwt:alice\"", "reason=\"CALLER_NOT_ALLOWED\"", "cause=\"principal\""],
        &["reason=\"UNAUTHENTICATED\""],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(log.contains("a token was refused reason=\"no key of the issuer made its signature\""), "{log}");
    for token in tokens {
        assert!(!log.contains(token) && !log.contains(token.rsplit('.').next().unwrap()), "the log has {token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_its_line_though_it_is_cut_off_at_the_very_end() {
    const CALLS: usize = 40;
    let (simulator, folder) = (simulator::Config::default().start().await.unwrap(), Folder::new());
    simulator.set_faults(failing(FailureKind::Hang));
    let mut program = Program::in_front_of(&simulator, &folder, "", "127.0.0.1:0", "");
    let clients = join_all((0..CALLS).map(|_| Client::connect(format!("http://{}", program.addr)))).await;
    let calls = clients.into_iter().map(|client| {
        let mut client = client.unwrap();
        tokio::spawn(async move {
            client.describe_instance_information(DescribeInstanceInformationRequest::default()).await
        })
    });
    let calls: Vec<_> = calls.collect();
    let active = "ssm_gateway_active_calls{rpc_method=\"ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation\"}";
    within(async {
        while metrics(program.admin).await[active] < 40.0 {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    program.signal("TERM");
    program.until("draining");
    program.signal("TERM");
    let log = program.stopped();
    assert_eq!(log.matches("call ended").count(), CALLS, "{log}");
    join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap().unwrap_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_keeps_nobody_waiting() {
    let (simulator, folder) = (simulator::Config::default().start().await.unwrap(), Folder::new());
    let mut program = Program::in_front_of(&simulator, &folder, "[log]\nformat = 'json'\n", "127.0.0.1:0", "");
    program.pause(true);
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", program.addr)).unwrap();
    let channel = within(channel.connect()).await.unwrap();
    // Six mebibytes of lines, where four may wait.
    let callers = (0..16).map(|_| {
        let mut client = Client::new(channel.clone());
        async move {
            for _ in 0..1000 {
                let mut request = tonic::Request::new(DescribeInstanceInformationRequest::default());
                request.metadata_mut().insert("x-request-id", "r".repeat(128).parse().unwrap());
                within(client.describe_instance_information(request)).await.unwrap();
            }
        }
    });
    join_all(callers).await;
    assert_eq!(get(program.admin, "/livez").await.0, 200);
    program.pause(false);
    program.until("log lines were dropped here");
    let log = program.stop();
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "one JSON object a line");
}
