//! Clients and an SSM that know nothing of us, checked against the simulator and the gateway. Python's side of it is in
//! `tests/peers`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    program::SSM_GATEWAY,
    proofs::Folder,
    support::{Gateway, Running, config, root, run, simulated, simulator_of, tool},
};

/// One of the checks in `tests/peers`.
fn check(script: &str, arguments: &[&str]) {
    let script = root().join("tests/peers").join(script);
    run(Command::new(tool("venv/bin/python")).arg(script).args(arguments));
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_and_the_aws_cli_read_the_simulators_fleet_and_errors() {
    let (_gateway, simulator) = simulated(1237).await;
    check("simulator_check.py", &[&simulator.url(), "1237"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_and_a_caller_of_the_gateway_see_the_same_nodes_value_by_value() {
    let (gateway, simulator) = simulated(1237).await;
    check("differential_check.py", &[&simulator.url(), &gateway.addr.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_and_grpcurl_are_served_over_a_unix_socket() {
    let (simulator, folder) = (simulator_of(120).await, Folder::new());
    let path = folder.path("gateway.sock");
    let _gateway = Gateway::on_unix_socket(config(&simulator.url()), &path).await;
    check("differential_check.py", &[&simulator.url(), &format!("unix:{}", path.display())]);
    let mut grpcurl = Command::new(tool(VERSIONS[0]));
    let listed = run(grpcurl.args(["-plaintext", "-unix"]).arg(&path).arg("list"));
    assert!(listed.contains("ssm_gateway.v1.InstanceInformationService"), "{listed}");
}

/// An SSM that somebody else wrote; dropping it ends it.
struct Ministack {
    url: String,
    _child: Running,
}

impl Ministack {
    fn start() -> Self {
        let mut command = Command::new(tool("venv/bin/python"));
        command.arg(root().join("tests/peers/ministack_run.py"));
        let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut port = String::new();
        BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("ministack prints its port");
        Self { url: format!("http://127.0.0.1:{port}"), _child: child }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_somebody_elses_ssm_is_whole() {
    let ministack = Ministack::start();
    check("ministack_check.py", &["seed", &ministack.url, "120"]);
    let gateway = Gateway::at(&ministack.url, |_| {}).await;
    check("ministack_check.py", &[&ministack.url, &gateway.addr.to_string(), "120"]);
}

/// The current grpcurl, and one that knows reflection as v1alpha alone.
const VERSIONS: [&str; 2] = ["bin/grpcurl", "venv/bin/grpcurl"];

fn grpcurl(of: &str, gateway: &Gateway, flags: &[&str], what: &[&str]) -> Command {
    let mut grpcurl = Command::new(tool(of));
    grpcurl.arg("-plaintext").args(flags).arg(gateway.addr.to_string()).args(what);
    grpcurl
}

const DESCRIBE: &str = "ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_takes_and_prints_aws_json() {
    let (gateway, _simulator) = simulated(300).await;
    for of in VERSIONS {
        let request = r#"{"MaxResults":5,"Filters":[{"Key":"PingStatus","Values":["Online"]}]}"#;
        let answer = run(&mut grpcurl(of, &gateway, &["-d", request], &[DESCRIBE]));
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let nodes = answer["InstanceInformationList"].as_array().unwrap();
        assert_eq!(nodes.len(), 5);
        assert!(nodes.iter().all(|node| node["PingStatus"] == "Online" && node.get("IPAddress").is_some()));
        assert!(answer["NextToken"].is_string());
        // The examples of AWS's own documentation, as JSON.
        for request in [
            r#"{"Filters":[{"Key":"InstanceIds","Values":["i-028ea792daEXAMPLE"]}]}"#,
            r#"{"InstanceInformationFilterList":[{"key":"InstanceIds","valueSet":["i-028ea792daEXAMPLE"]}]}"#,
            r#"{"Filters":[{"Key":"tag:Purpose","Values":["Test"]}],"MaxResults":50}"#,
        ] {
            run(&mut grpcurl(of, &gateway, &["-d", request], &[DESCRIBE]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_explores_the_contract_with_its_comments() {
    let (gateway, _simulator) = simulated(1).await;
    for of in VERSIONS {
        let listed = run(&mut grpcurl(of, &gateway, &[], &["list"]));
        for service in ["grpc.health.v1.Health", "ssm_gateway.v1.InstanceInformationService"] {
            assert!(listed.contains(service), "{listed}");
        }
        let described = run(&mut grpcurl(of, &gateway, &[], &["describe", "ssm_gateway.v1.InstanceInformation"]));
        assert!(described.contains("Connection status of SSM Agent"), "{described}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_decodes_the_details_of_an_error() {
    let (gateway, _simulator) = simulated(1).await;
    for of in VERSIONS {
        let output = grpcurl(of, &gateway, &["-d", r#"{"MaxResults":4}"#], &[DESCRIBE]).output().unwrap();
        assert_eq!(output.status.code(), Some(64 + 3));
        let shown = String::from_utf8_lossy(&output.stderr).replace(' ', "");
        for part in [
            "InvalidArgument",
            r#""reason":"VALIDATION""#,
            r#""domain":"ssm.amazonaws.com""#,
            r#""field":"max_results""#,
        ] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buf_curl_lists_calls_and_is_told_errors() {
    let (gateway, _simulator) = simulated(300).await;
    let curl = |flags: &[&str], path: &str| {
        let mut curl = Command::new(tool("venv/bin/buf"));
        curl.args(["curl", "--protocol", "grpc", "--http2-prior-knowledge"]).args(flags);
        curl.arg(format!("http://{}/{path}", gateway.addr));
        curl
    };
    assert!(run(&mut curl(&["--list-methods"], "")).contains(DESCRIBE));
    let answer = run(&mut curl(&["-d", r#"{"MaxResults":50}"#], DESCRIBE));
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["InstanceInformationList"].as_array().unwrap().len(), 50);
    let output = curl(&["-d", r#"{"MaxResults":4}"#], DESCRIBE).output().unwrap();
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&error["code"], &error["details"][0]["type"]),
        (&"invalid_argument".into(), &"google.rpc.ErrorInfo".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcios_reflection_builds_the_contract_and_goes_on_behind_what_is_not_there() {
    let (gateway, _simulator) = simulated(1).await;
    let folder = Folder::new();
    run(Command::new(SSM_GATEWAY).args(["proto", "--out"]).arg(folder.path("contract")));
    let descriptors = folder.path("contract/descriptors.binpb");
    check("reflection_check.py", &[&gateway.addr.to_string(), descriptors.to_str().unwrap()]);
}

#[test]
fn the_program_alone_is_enough_to_generate_a_client() {
    let folder = Folder::new();
    let (out, contract) = (folder.path("contract"), root().join("proto"));
    let told = run(Command::new(SSM_GATEWAY).args(["proto", "--out"]).arg(&out));
    let mut written: Vec<_> = told.lines().map(|line| Path::new(line).strip_prefix(&out).unwrap()).collect();
    assert_eq!(written.pop().unwrap(), Path::new("descriptors.binpb"));
    for file in &written {
        assert_eq!(fs::read(out.join(file)).unwrap(), fs::read(contract.join(file)).unwrap(), "{}", file.display());
    }
    let files = fs::read_dir(contract.join("ssm_gateway/v1")).unwrap();
    let mut files: Vec<_> =
        files.map(|file| file.unwrap().path().strip_prefix(&contract).unwrap().to_owned()).collect();
    written.sort_unstable();
    files.sort_unstable();
    assert_eq!(written, files, "all that is in proto/ is in the program");
    run(Command::new(tool("venv/bin/buf")).current_dir(&out).args(["build", "descriptors.binpb"]));
    let python = || {
        let mut python = Command::new(tool("venv/bin/python"));
        python.current_dir(&out);
        python
    };
    let sources = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "proto"));
    let mut protoc = python();
    run(protoc.args(["-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=."]).args(sources));
    run(python()
        .args(["-c", "from ssm_gateway.v1 import instance_information_service_pb2_grpc, target_service_pb2_grpc"]));
}
