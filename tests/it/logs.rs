//! What the program writes while it works must not tell where nodes are.

use std::process::{Command, Stdio};

use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{self, FailureKind, Faults},
};
use tonic::Code;

use crate::{
    program::Program,
    proofs::{Folder, Issuer, sha256, with_token},
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
        &["principal=\"token:ci\"", "status=\"Ok\""][..],
        &["reason=\"UNAUTHENTICATED\"", "cause=\"unknown\""],
        &["principal=\"jwt:alice\"", "reason=\"CALLER_NOT_ALLOWED\"", "cause=\"principal\""],
        &["reason=\"UNAUTHENTICATED\""],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(log.contains("a JWT was refused"), "{log}");
    for token in tokens {
        assert!(!log.contains(token) && !log.contains(token.rsplit('.').next().unwrap()), "the log has {token}");
    }
}
