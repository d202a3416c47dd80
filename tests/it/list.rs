//! `ssm-gateway list` where something is odd: names of nodes, failures, waits.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use ssm_gateway::{
    proto::DescribeInstanceInformationRequest,
    simulator::{Failure, FailureKind, Faults},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    admin::idle,
    program::SSM_GATEWAY,
    support::{Gateway, aws_error, failing, failing_as, simulated, simulated_with},
};

fn list(gateway: &Gateway, flags: &[&str]) -> Output {
    let server = gateway.addr.to_string();
    Command::new(SSM_GATEWAY).args(["list", "--server", &server]).args(flags).output().unwrap()
}

/// What a terminal gets; its standard error is the same one.
fn on_a_terminal(gateway: &Gateway, flags: &str) -> String {
    let list = format!("{SSM_GATEWAY} list --server {} {flags}", gateway.addr);
    let output = Command::new("script").args(["-qec", &list, "/dev/null"]).env("TERM", "xterm").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// An SSM of one node, which names itself so.
async fn ssm_of(name: &str) -> SocketAddr {
    let node = serde_json::json!({ "InstanceId": "i-0123456789abcdef0", "ComputerName": name });
    let body = serde_json::json!({ "InstanceInformationList": [node] }).to_string();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length";
    let (answer, socket) =
        (format!("{head}: {}\r\n\r\n{body}", body.len()), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let _asked = stream.read(&mut [0; 1 << 14]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_steers_no_terminal_and_files_have_its_name_as_it_is() {
    let name = "evil\u{1b}]0;title\u{7}\u{9b}2J\u{202e}gpj.exe";
    let gateway = Gateway::at(&format!("http://{}", ssm_of(name).await), |_| {}).await;
    for format in ["table", "json", "jsonl", "csv"] {
        let drawn = on_a_terminal(&gateway, &format!("--output {format}"));
        // What the command itself draws: the count of nodes, and what clears it.
        let drawn = drawn.replace("\u{1b}[K", "").replace(['\r', '\n'], "");
        assert!(drawn.contains("evil") && drawn.contains("gpj.exe"), "{format}: {drawn:?}");
        assert!(!drawn.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{format}: {drawn:?}");
    }
    let output = list(&gateway, &["--output", "json"]).stdout;
    assert!(String::from_utf8_lossy(&output).contains('\u{202e}'));
    let json: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(json["InstanceInformationList"][0]["ComputerName"], name);
    let output = list(&gateway, &["--output", "csv"]).stdout;
    let row = csv::Reader::from_reader(&*output).records().next().unwrap().unwrap();
    assert!(row.iter().any(|cell| cell == name), "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_fails_half_way_is_json_with_the_reason() {
    let (gateway, simulator) = simulated(500).await;
    let first = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
    gateway.describe(first).await.unwrap();
    simulator.set_faults(failing(FailureKind::Hang));
    // The first page is there, the second one never comes; a busy machine needs more time for the first.
    let mut timeout = 1;
    let output = loop {
        let output = list(&gateway, &["--output", "json", "--timeout", &format!("{timeout}s")]);
        if !output.stdout.is_empty() {
            break output;
        }
        timeout *= 2;
    };
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["InstanceInformationList"].as_array().unwrap().len()), (Some(1), 50));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(format!("error: {}\n", json["error"].as_str().unwrap()), stderr);

    let (gateway, simulator) = simulated(500).await;
    simulator.set_faults(Faults { expire_tokens: true, ..Faults::default() });
    let output = list(&gateway, &["--output", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["InstanceInformationList"].as_array().unwrap().len()), (Some(1), 50));
    assert!(json["error"].as_str().unwrap().contains("Aborted"), "{}", json["error"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_reported_at_once() {
    for kind in [
        FailureKind::AccessDenied,
        FailureKind::ExpiredCredentials,
        aws_error(400, "ValidationException", Some("No.")),
        aws_error(400, "OptInRequired", None),
        FailureKind::HtmlOk,
    ] {
        // Advice that is short, so that whoever follows it ends, too.
        let (gateway, simulator) = simulated_with(1, |config| {
            config.listing.negative_ttl = Duration::from_millis(10);
            config.listing.hold_off = Duration::from_millis(10);
        })
        .await;
        simulator.set_faults(failing(kind.clone()));
        let output = list(&gateway, &["--filter", "PingStatus=Online"]);
        assert_eq!(output.status.code(), Some(1));
        let calls = idle(gateway.admin).await.into_iter();
        let calls = calls.filter(|(name, _)| name.starts_with("rpc_server_call_duration_seconds_count{"));
        assert_eq!(calls.map(|(_, calls)| calls).sum::<f64>(), 1.0, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_waits_it_says_why_to_whom_looks() {
    let (gateway, simulator) = simulated_with(1, |config| config.listing.throttle_patience = Duration::ZERO).await;
    let throttled = || Failure { calls: Some(1), ..Failure::always(FailureKind::Throttling) };
    simulator.set_faults(failing_as(throttled()));
    let drawn = on_a_terminal(&gateway, "--output csv");
    assert!(drawn.contains("the gateway answered ResourceExhausted: Rate exceeded; retrying in "), "{drawn}");
    assert!(drawn.contains("\ni-") || drawn.contains("\nmi-"), "{drawn}");
    simulator.set_faults(failing_as(throttled()));
    let output = list(&gateway, &["--output", "csv", "--max-age", "0s"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_sent_as_it_is_meant() {
    let (gateway, _simulator) = simulated(300).await;
    let count = |filter: &str| {
        let output = list(&gateway, &["--output", "jsonl", "--filter", filter]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    assert!(count("PlatformTypes=Windows,MacOS") > 0);
    assert_eq!(count(" PlatformTypes = Windows, MacOS "), count("PlatformTypes=Windows,MacOS"));
    assert_eq!(count(r"tag:Name=a\,b"), 0);
}
