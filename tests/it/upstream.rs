//! What reaches SSM: the question, its credentials, and what comes of none.

use std::process::{Command, Stdio};

use ssm_gateway::{
    aws::BuildError,
    proto::{DescribeInstanceInformationRequest, DescribeInstanceInformationResponse},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    program::Program,
    support::{Client, filter, filtered, simulated, within},
};

#[tokio::test]
async fn filters_are_asked_in_their_normal_order_and_no_others() {
    let (gateway, simulator) = simulated(5).await;
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    assert_eq!(simulator.stats().last_request, serde_json::json!({"MaxResults": 50}));
    let filters = vec![filter("PingStatus", &["Online", "Inactive"]), filter("IamRole", &["b", "a"])];
    gateway.describe(filtered(filters)).await.unwrap();
    let expected = serde_json::json!({"MaxResults": 50, "Filters": [
        {"Key": "IamRole", "Values": ["a", "b"]},
        {"Key": "PingStatus", "Values": ["Inactive", "Online"]},
    ]});
    assert_eq!(simulator.stats().last_request, expected);
}

/// The region may come from AWS's own variables, so that the environment must be that of a process of its own.
fn serve(environment: &[(&str, &str)], flags: &[&str]) -> Command {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_ssm-gateway"));
    serve.args(["serve", "--listen", "127.0.0.1:0"]).args(flags).env_clear().envs(environment.iter().copied());
    serve.env("AWS_EC2_METADATA_DISABLED", "true").stderr(Stdio::piped());
    serve
}

/// One page, of a program.
async fn describe(program: &Program) -> Result<DescribeInstanceInformationResponse, Status> {
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    let answer = within(client.describe_instance_information(DescribeInstanceInformationRequest::default())).await;
    answer.map(tonic::Response::into_inner)
}

#[test]
fn without_a_region_the_program_says_how_to_give_one() {
    let output = serve(&[], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("error: target default: {}\n", BuildError::NoRegion);
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

#[test]
fn an_endpoint_that_is_no_url_is_refused_at_the_start() {
    for url in ["localhost:4566", "ftp://localhost", "nonsense", "/"] {
        let output = serve(&[("AWS_REGION", "eu-central-1")], &["--endpoint-url", url]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            stderr.starts_with(&format!("error: upstream.endpoint_url is wrong: {url:?} is not an endpoint URL")),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn flags_win_over_the_environment_and_both_over_the_file() {
    let (_gateway, simulator) = simulated(3).await;
    let file = std::env::temp_dir().join(format!("ssm-gateway-precedence-{}.toml", std::process::id()));
    let text = "[edge]\nlisten = \"127.0.0.1:1\"\n[upstream]\nregion = \"eu-west-1\"\nendpoint_url = \"nonsense\"\n";
    std::fs::write(&file, text).unwrap();
    let url = simulator.url();
    let environment = [
        ("SSM_GATEWAY_ENDPOINT_URL", &*url),
        ("SSM_GATEWAY_LISTEN", "127.0.0.1:2"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    // The address comes from a flag, the endpoint from the environment, the region from the file.
    let program = Program::start(serve(&environment, &["--config", file.to_str().unwrap()]));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(describe(&program).await.unwrap().instance_information_list.len(), 3);
}

#[tokio::test]
async fn region_endpoint_and_credentials_come_from_aws_own_variables() {
    let (_gateway, simulator) = simulated(7).await;
    let url = simulator.url();
    let environment = [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL_SSM", &*url),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let program = Program::start(serve(&environment, &[]));
    assert_eq!(describe(&program).await.unwrap().instance_information_list.len(), 7);
}

#[tokio::test]
async fn without_credentials_callers_are_told_that_it_is_the_gateways_fault() {
    let (_gateway, simulator) = simulated(7).await;
    let program = Program::start(serve(&[("AWS_REGION", "eu-central-1")], &["--endpoint-url", &simulator.url()]));
    let status = describe(&program).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason), (Code::Unavailable, "AWS_CREDENTIALS"), "{status:?}");
    assert_eq!(simulator.stats().calls, 0);
}
