//! What the program writes while it works must not tell where nodes are.

use std::process::{Command, Stdio};

use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{FailureKind, Faults},
};

use crate::{
    program::Program,
    support::{Client, failing, simulated, within},
};

#[tokio::test(flavor = "multi_thread")]
async fn no_address_and_no_host_name_is_ever_logged() {
    let (gateway, simulator) = simulated(200).await;
    let nodes = gateway.walk(DescribeInstanceInformationRequest::default()).await;
    let config = std::env::temp_dir().join(format!("ssm-gateway-logs-{}.toml", std::process::id()));
    std::fs::write(&config, "[listing]\nttl = \"0s\"\nhold_off = \"0s\"\nmax_hold_off = \"0s\"\n").unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_ssm-gateway"));
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--region", "us-east-1", "--log-filter", "trace"])
        .args(["--log-format", "json", "--endpoint-url", &simulator.url()])
        .arg("--config")
        .arg(&config)
        .envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "topsecret")])
        .stderr(Stdio::piped());
    let program = Program::start(serve);
    std::fs::remove_file(&config).unwrap();
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    for faults in [
        Faults::default(),
        failing(FailureKind::Cut),
        failing(FailureKind::MalformedJson),
        failing(FailureKind::Throttling),
        failing(FailureKind::AccessDenied),
    ] {
        simulator.set_faults(faults);
        let mut pages =
            match within(client.stream_instance_information(StreamInstanceInformationRequest::default())).await {
                Ok(answer) => answer.into_inner(),
                Err(_) => continue,
            };
        while let Ok(Some(_)) = within(pages.message()).await {}
    }
    drop(client);
    let log = program.stop();
    assert!(log.contains("call ended") && log.contains("AWS gave no page"), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "one JSON object a line");
    for node in &nodes {
        for secret in [node.ip_address(), node.computer_name(), "topsecret"] {
            assert!(secret.is_empty() || !log.contains(secret), "the log has {secret}");
        }
    }
}
