//! Replicas that are restarted one after the other, behind a client that knows nothing of us.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use ssm_gateway::{
    proto::DescribeInstanceInformationRequest,
    simulator::{Failure, FailureKind},
};
use tokio::time;

use crate::{
    program::Program,
    proofs::Folder,
    support::{failing_as, root, run, simulated, simulator_of, tool},
};

/// A port that is free, and that no client is given by the system until it is needed again.
fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..30_000));
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Restarts each of two replicas so many times under so many calls a second.
async fn roll_out(times: usize, rate: u64) {
    const NODES: usize = 20_000;
    let simulator = simulator_of(NODES).await;
    let folder = Folder::new();
    let config = "[edge]\ndrain_delay = '500ms'\ndrain_timeout = '400ms'\nmax_connection_age = '3s'\n\
                  [upstream]\nrequests_per_second = 1e6\n[listing]\nttl = '10s'\n[log]\nfilter = 'warn,ssm_gateway::app=info'\n";
    let start = |port: u16| Program::in_front_of(&simulator, &folder, config, &format!("127.0.0.1:{port}"), "");
    let mut replicas = [start(free_port()), start(free_port())];
    let addresses = replicas.each_ref().map(|replica| replica.addr.to_string()).join(",");
    let mut client = Command::new(tool("venv/bin/python"));
    client.arg(root().join("tests/peers/rollout.py")).args([&addresses, &NODES.to_string(), &rate.to_string()]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "calling");
    let started = Instant::now();
    for _ in 0..times {
        for replica in &mut replicas {
            time::sleep(Duration::from_secs(1)).await;
            let port = replica.addr.port();
            replica.signal("TERM");
            replica.until("stopped");
            *replica = start(port);
        }
    }
    time::sleep(Duration::from_secs(1)).await;
    let expected = started.elapsed().as_secs() * rate;
    drop(client.stdin.take());
    let said = lines.next().unwrap().unwrap();
    println!("{said}");
    assert!(client.wait().unwrap().success());
    let said: Value = serde_json::from_str(&said).unwrap();
    let number = |name: &str| said[name].as_u64().unwrap();
    assert_eq!((&said["failed"], &said["wrong"]), (&serde_json::json!([]), &serde_json::json!([])), "{said}");
    assert!(number("calls") > expected * 9 / 10 && number("streams") > 3 && number("resumed") > 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_restarted_in_turn_and_nobody_notices() {
    roll_out(1, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn long_replicas_are_restarted_in_turn_and_nobody_notices() {
    roll_out(4, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_retry_policy_rides_a_throttle_out_by_its_advice() {
    let (gateway, simulator) = simulated(60).await;
    let throttling = Failure {
        calls: Some(1),
        retry_after: Some(Duration::from_millis(700)),
        ..Failure::always(FailureKind::Throttling)
    };
    // The first call is answered, and so is the second, in the end.
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    simulator.set_faults(failing_as(throttling));
    let check = root().join("tests/peers/retry_check.py");
    let took = run(Command::new(tool("venv/bin/python")).arg(check).arg(gateway.addr.to_string()));
    let took: f64 = took.trim().parse().unwrap();
    assert!((0.7..5.0).contains(&took), "{took}");
    assert_eq!(simulator.stats().calls, 3);
}

#[test]
fn the_published_retry_policy_is_what_the_gateway_answers_by() {
    let text = std::fs::read_to_string(root().join("proto/ssm_gateway/v1/service_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let methods = config["methodConfig"].as_array().unwrap();
    let named: HashSet<(&str, Option<&str>)> = methods
        .iter()
        .flat_map(|method| method["name"].as_array().unwrap())
        .map(|name| (name["service"].as_str().unwrap(), name["method"].as_str()))
        .collect();
    let service = ssm_gateway::service::SERVICE_NAME;
    let expected = [
        (service, Some("DescribeInstanceInformation")),
        (service, Some("StreamInstanceInformation")),
        (ssm_gateway::service::TARGET_SERVICE_NAME, None),
    ];
    assert_eq!(named, expected.into());
    let defaults = ssm_gateway::config::Config::default();
    for method in methods {
        assert_eq!(
            method["retryPolicy"]["retryableStatusCodes"],
            serde_json::json!(["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
        );
        assert_eq!(method["maxRequestMessageBytes"], defaults.service.max_request_size);
        let timeout = method["timeout"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
        let timeout = Duration::from_secs(timeout);
        assert!(timeout > defaults.upstream.fetch_timeout && timeout <= defaults.limits.max_call_time);
    }
    assert_eq!(config["healthCheckConfig"]["serviceName"], service);
}
