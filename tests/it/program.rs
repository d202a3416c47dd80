//! The program as a person runs it.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{ChildStdout, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use ssm_gateway::{
    config::Target,
    simulator::{Failure, FailureKind, Faults, Scope, Simulator},
};

use crate::{
    proofs::{Folder, Issuer},
    support::{Gateway, PATIENCE, Running, failing, failing_as, run, simulated, simulated_with, simulator_of, tool},
};

/// What requests to AWS are signed with.
pub(crate) const AWS_SECRET: &str = "signing-secret";

pub(crate) const SSM_GATEWAY: &str = env!("CARGO_BIN_EXE_ssm-gateway");

/// A running `ssm-gateway serve`; dropping it kills it.
pub(crate) struct Program {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Running,
    /// The lines of its log, which end with it, and whether they are not read for now.
    lines: mpsc::Receiver<String>,
    is_paused: Arc<AtomicBool>,
    log: String,
}

impl Program {
    /// Starts the command, whose standard error is piped, and waits until it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        command.env("SSM_GATEWAY_ADMIN_LISTEN", "127.0.0.1:0");
        let mut child = command.spawn().unwrap();
        let (log, (sender, lines)) = (BufReader::new(child.stderr.take().unwrap()), mpsc::channel());
        let is_paused = Arc::new(AtomicBool::new(false));
        let waits = Arc::clone(&is_paused);
        std::thread::spawn(move || {
            log.lines().map_while(Result::ok).try_for_each(|line| {
                while waits.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                sender.send(line)
            })
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut program =
            Self { addr: nowhere, admin: nowhere, child: Running(child), lines, is_paused, log: String::new() };
        program.until("listening");
        let told = ["admin", "listening"].map(|what| program.log.lines().rfind(|line| line.contains(what)).unwrap());
        let mut ports = told
            .iter()
            .map(|line| line.rsplit("127.0.0.1:").next().unwrap())
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap());
        let (admin, port) = (ports.next().unwrap(), ports.next().unwrap());
        drop(ports);
        program.admin.set_port(admin);
        program.addr.set_port(port);
        program
    }

    /// The program in front of a simulator, with what its file says, on this address; `before` is for the shell that starts it.
    pub(crate) fn in_front_of(
        simulator: &Simulator,
        folder: &Folder,
        config: &str,
        listen: &str,
        before: &str,
    ) -> Self {
        let (file, url) = (folder.write("gateway.toml", config), simulator.url());
        let serve = format!("{SSM_GATEWAY} serve --listen {listen} --region us-east-1 --endpoint-url {url} --config");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec {serve} {}", file.display())]);
        command.envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", AWS_SECRET)]).stderr(Stdio::piped());
        Self::start(command)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Reads its log on until it says this.
    pub(crate) fn until(&mut self, what: &str) {
        let mut is_said = false;
        while !is_said {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{error} before {what:?}: {}", self.log));
            is_said = line.contains(what);
            self.log += &line;
            self.log += "\n";
        }
    }

    /// Reads its log no further, or goes on.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// Sends it a signal, such as TERM.
    pub(crate) fn signal(&self, name: &str) {
        run(Command::new("kill").args([&format!("-{name}"), &self.child.0.id().to_string()]));
    }

    /// Stops it by SIGTERM, and gives all that it logged.
    pub(crate) fn stop(self) -> String {
        self.signal("TERM");
        self.stopped()
    }

    /// Waits for its end, and gives all that it logged.
    pub(crate) fn stopped(mut self) -> String {
        let mut log = std::mem::take(&mut self.log);
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => log = log + &line + "\n",
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end: {log}"),
            }
        }
        assert!(self.child.0.wait().unwrap().success());
        log
    }
}

fn list(server: SocketAddr, flags: &[&str]) -> Output {
    Command::new(SSM_GATEWAY).args(["list", "--server", &server.to_string()]).args(flags).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn list_prints_every_node_in_every_format() {
    let (gateway, _simulator) = simulated(137).await;
    let table = stdout(&list(gateway.addr, &[]));
    assert_eq!(table.lines().count(), 1 + 137);
    assert!(table.starts_with("InstanceId"));
    let jsonl = stdout(&list(gateway.addr, &["--output", "jsonl", "--page-size", "20"]));
    let json: serde_json::Value = serde_json::from_str(&stdout(&list(gateway.addr, &["--output", "json"]))).unwrap();
    let nodes: Vec<serde_json::Value> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json["InstanceInformationList"].as_array().unwrap(), &nodes);
    assert_eq!(nodes.len(), 137);
    let csv = stdout(&list(gateway.addr, &["--output", "csv"]));
    let mut csv = csv::Reader::from_reader(csv.as_bytes());
    let ids: Vec<String> = csv.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(ids, nodes.iter().map(|node| node["InstanceId"].as_str().unwrap()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn list_comes_back_when_it_is_told_to_and_goes_on_where_it_was() {
    let simulator = simulator_of(530).await;
    let gateway = Gateway::at(&simulator.url(), |config| {
        config.listing.hold_off = Duration::from_millis(10);
        config.listing.throttle_patience = Duration::ZERO;
    })
    .await;
    let throttling = Failure { probability: 0.3, ..Failure::always(FailureKind::Throttling) };
    simulator.set_faults(failing_as(throttling));
    let output = list(gateway.addr, &["--output", "csv", "--max-age", "0s"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = stdout(&output);
    let ids: HashSet<&str> = text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!((ids.len(), text.lines().count()), (530, 531));
    assert!(simulator.stats().calls > 11, "it was throttled: {}", simulator.stats().calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_filters_as_it_is_told() {
    let (gateway, _simulator) = simulated(300).await;
    let flags = ["--output", "jsonl", "--filter", "PlatformTypes=Windows,MacOS", "--filter", "PingStatus=Online"];
    let output = stdout(&list(gateway.addr, &flags));
    assert!(output.lines().count() > 10);
    for line in output.lines() {
        let node: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(node["PingStatus"], "Online");
        assert!(["Windows", "MacOS"].contains(&node["PlatformType"].as_str().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_read_enough_is_no_failure() {
    let (gateway, _simulator) = simulated(1000).await;
    for format in ["table", "json", "jsonl", "csv"] {
        let mut list = Command::new(SSM_GATEWAY);
        list.args(["list", "--server", &gateway.addr.to_string(), "--output", format]);
        let mut child = list.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{format}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_one_sentence_and_an_exit_code() {
    let (gateway, simulator) = simulated(5).await;
    let fails = |flags: &[&str], code: i32, sentence: &str| {
        let output = list(gateway.addr, flags);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(sentence), "{stderr}");
        assert!(output.stdout.is_empty());
        stderr
    };
    let stderr = fails(&["--filter", "Color=red"], 1, "UnknownKey filter Key is invalid.");
    assert_eq!(stderr, "error: the gateway answered InvalidArgument: UnknownKey filter Key is invalid.\n");
    fails(&["--filter", "Color"], 2, "a filter is KEY=VALUE[,VALUE...]");
    fails(&["--server", "127.0.0.1:1"], 2, "cannot be used multiple times");
    simulator.set_faults(failing(FailureKind::Hang));
    fails(&["--timeout", "200ms"], 1, "error: the gateway did not answer in time\n");
    let output = Command::new(SSM_GATEWAY).args(["list", "--server", "127.0.0.1:1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: could not reach a gateway at 127.0.0.1:1"));
}

/// Runs a command with a configuration file of this content: what it printed, what it said, and its exit code.
fn with_config(command: &str, content: &str) -> (String, String, Option<i32>) {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("ssm-gateway-{}-{number}.toml", std::process::id()));
    std::fs::write(&file, content).unwrap();
    let mut program = Command::new(SSM_GATEWAY);
    program.args([command, "--config"]).arg(&file);
    program.envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", AWS_SECRET)]);
    let output = program.output().unwrap();
    std::fs::remove_file(&file).unwrap();
    (stdout(&output), String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[test]
fn a_wrong_configuration_file_is_refused_with_its_line_and_the_key_that_was_meant() {
    for command in ["serve", "check"] {
        let content = "[targets.prod]\nregion = \"eu-west-1\"\nrole_anr = \"x\"\n";
        let (_, stderr, code) = with_config(command, content);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("line 3") && stderr.contains("did you mean role_arn?"), "{stderr}");
    }
}

#[test]
fn a_configuration_is_checked_without_serving() {
    let content = "default_target = \"prod-us\"\n[upstream]\nregion = \"us-east-1\"\n\
                   [targets.prod-eu]\nregion = \"eu-west-1\"\n[targets.prod-us]\n";
    let (stdout, _, code) = with_config("check", content);
    let by = "credentials: the environment (AWS_ACCESS_KEY_ID)";
    let expected = format!("  prod-eu in eu-west-1, {by}\n* prod-us in us-east-1, {by}\n");
    assert_eq!((stdout, code), (expected, Some(0)));
    let prod = "[targets.prod]\nregion = \"eu-west-1\"\n";
    for (content, told) in [
        ("default_target = \"prod\"".to_owned(), "line 1: default_target is \"prod\", and there is no such target"),
        (
            format!("{prod}role_arn = \"SsmReader\""),
            "line 3: targets.prod.role_arn is wrong: \"SsmReader\" is not the ARN",
        ),
        (format!("{prod}sts_endpoint_url = \"sts\""), "line 3: targets.prod.sts_endpoint_url is wrong: \"sts\" is not"),
        (format!("{prod}ttl = \"often\""), "line 3"),
        ("[targets.'prod*']".to_owned(), "a target's name consists of letters"),
    ] {
        let (_, stderr, code) = with_config("check", &content);
        assert_eq!(code, Some(1));
        assert!(stderr.contains(told), "{stderr}");
    }
}

#[test]
fn a_rule_about_targets_that_there_are_none_of_is_warned_of() {
    let content =
        "[targets.prod]\nregion = 'eu-west-1'\n[[allow]]\nprincipal = 'anonymous'\ntargets = ['pr*', 'prd-*']\n";
    let (stdout, stderr, code) = with_config("check", content);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("* prod in eu-west-1, "), "{stdout}");
    assert_eq!(stderr, "warning: allow.0.targets: no target matches \"prd-*\"\n");
}

#[test]
fn check_warns_of_the_keys_of_a_jwks_that_are_skipped() {
    let (folder, issuer) = (Folder::new(), Issuer::new("one"));
    let wrong = issuer.key(|jwk| drop(jwk.insert("kid".to_owned(), 5.into())));
    let good = issuer.key(|_| {});
    let jwks = folder.write("jwks.json", serde_json::json!({ "keys": [wrong, good] }).to_string());
    let content = format!(
        "upstream.region = 'eu-west-1'\n[auth.jwt]\njwks = '{}'\nissuer = 'i'\naudiences = ['a']\n[[allow]]\nprincipal = '*'\n",
        jwks.display()
    );
    let (_, stderr, code) = with_config("check", &content);
    assert_eq!((code, stderr.lines().count()), (Some(0), 1), "{stderr}");
    assert!(stderr.contains("a key of the JWKS is skipped") && stderr.contains("`kid` is not a string"), "{stderr}");
}

#[test]
fn an_address_that_others_can_reach_is_not_served_to_everybody_unless_that_is_said() {
    let check = |flags: &[&str], variable: Option<&str>| {
        let mut command = Command::new(SSM_GATEWAY);
        command.args(["check", "--listen", "0.0.0.0:50051", "--region", "eu-west-1"]).args(flags);
        let output = command.envs(variable.map(|variable| (variable, "true"))).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = check(&[], None);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("error: edge.listen is 0.0.0.0:50051, where everybody could call"), "{stderr}");
    assert_eq!(check(&["--allow-anonymous"], None).0, Some(0));
    assert_eq!(check(&[], Some("SSM_GATEWAY_ALLOW_ANONYMOUS")).0, Some(0));
    assert_eq!(check(&["--allow-anonymous=false"], Some("SSM_GATEWAY_ALLOW_ANONYMOUS")).0, Some(1), "flags win");
    let token = format!("[[auth.tokens]]\nname = 'ci'\nsha256 = '{}'\n[[allow]]\nprincipal = '*'\n", "0".repeat(64));
    let folder = Folder::new();
    let file = folder.write("gateway.toml", format!("[upstream]\nregion = 'eu-west-1'\n{token}"));
    let (code, stderr) = check(&["--config", file.to_str().unwrap()], None);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("others could read tokens"), "{stderr}");
    let flags = ["--allow-plaintext-tokens", "--config", file.to_str().unwrap()];
    assert_eq!(check(&flags, None).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn list_says_of_each_node_which_target_it_is_of_and_ends_with_what_could_not_be_reached() {
    let simulator = simulator_of(7).await;
    let gateway = Gateway::at(&simulator.url(), |config| {
        for (name, region) in [("prod-eu", "eu-west-1"), ("prod-us", "us-east-1"), ("test", "eu-west-2")] {
            let target = Target { region: Some(region.to_owned()), ..Target::default() };
            config.targets.insert(name.into(), target);
        }
    })
    .await;
    let output = list(gateway.addr, &["--target", "prod-*"]);
    assert!(output.status.success());
    let table = stdout(&output);
    assert!(table.starts_with("target   InstanceId"), "{table}");
    let of = |name: &str| table.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((of("prod-eu"), of("prod-us"), of("test")), (7, 7, 0));
    assert!(stdout(&list(gateway.addr, &["--target", "test"])).starts_with("InstanceId"));

    simulator.set_faults_of(Scope::new("123456789012", "eu-west-2"), failing(FailureKind::AccessDenied));
    let output = list(gateway.addr, &["--target", "prod-eu", "--target", "t*", "--output", "csv"]);
    assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(0), 1 + 7 + 7), "it is still fresh");
    simulator.set_faults_of(Scope::new("123456789012", "eu-west-1"), failing(FailureKind::AccessDenied));
    let flags = ["--target", "*", "--output", "csv", "--filter", "PingStatus=Online"];
    let output = list(gateway.addr, &flags);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stdout(&output).lines().skip(1).all(|line| line.starts_with("prod-us,")));
    assert!(stderr.starts_with("error: ") && stderr.contains("test (") && stderr.contains("prod-eu ("), "{stderr}");

    let output = Command::new(SSM_GATEWAY).args(["targets", "--server", &gateway.addr.to_string()]).output().unwrap();
    let table = stdout(&output);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "REGION", "STATE", "LAST", "ANSWERED"]);
    assert_eq!(lines[1][..3], ["prod-eu", "eu-west-1", "denied"]);
    assert_eq!(lines[2][..3], ["prod-us", "us-east-1", "ready"]);
}

#[test]
fn help_teaches_every_command() {
    let help = run(Command::new(SSM_GATEWAY).arg("--help"));
    for command in ["serve", "check", "simulate", "demo", "list", "targets", "health", "proto", "top"] {
        assert!(help.contains(command));
        let help = run(Command::new(SSM_GATEWAY).args([command, "--help"]));
        assert!(help.lines().count() > 8 && !help.contains('`'), "{help}");
    }
}

/// Reads lines until one contains `what`.
fn until(lines: &mut BufReader<ChildStdout>, what: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(what) {
        assert_ne!(lines.read_line(&mut seen).unwrap(), 0, "it ended: {seen}");
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_calls_that_work_and_keeps_serving() {
    let mut child = Command::new(SSM_GATEWAY)
        .args(["demo", "--port", "0", "--admin-port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let shown = until(&mut lines, "Serving until Ctrl-C.");
    assert!(shown.contains("1237 nodes"));
    assert_eq!(shown.lines().filter(|line| line.starts_with("i-") || line.starts_with("mi-")).count(), 5, "{shown}");
    // The lines are for a shell, so a shell runs them.
    let grpcurl = tool("bin/grpcurl");
    let path = format!("{}:{}", grpcurl.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut calls = 0;
    for line in shown.lines().map(str::trim).filter(|line| line.starts_with("grpcurl ")) {
        let printed = run(Command::new("sh").args(["-c", line]).env("PATH", &path));
        assert!(printed.contains("DescribeInstanceInformation") || printed.contains("\"InstanceInformationList\""));
        calls += 1;
    }
    assert_eq!(calls, 2);
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_can_be_steered_while_it_runs() {
    let mut command = Command::new(SSM_GATEWAY);
    command.args([
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--nodes",
        "7",
        "--fail",
        "throttling:0.5",
        "--latency",
        "1ms",
    ]);
    command.args(["--empty-every", "4", "--repeat-token", "--expire-tokens", "--unknown-members"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let shown = until(&mut lines, "\n");
    let url = shown.trim().rsplit(' ').next().unwrap().to_owned();
    let python = r#"
import json, sys, urllib.request as r
url = sys.argv[1] + "/_simulator/"
faults = json.load(r.urlopen(url + "faults"))
assert faults["latency"] == "1ms" and faults["failures"] == [{"kind": "throttling", "probability": 0.5}], faults
assert faults["empty_every"] == 4, faults
assert faults["repeat_token"] and faults["expire_tokens"] and faults["unknown_members"], faults
new = {"failures": [{"kind": {"error": {"status": 400, "code": "Odd"}}, "calls": 1}], "empty_every": 3}
put = r.Request(url + "faults", json.dumps(new).encode(), {"content-type": "application/json"}, method="PUT")
assert json.load(r.urlopen(put))["empty_every"] == 3
assert json.load(r.urlopen(url + "stats"))["calls"] == 0
"#;
    run(Command::new(tool("venv/bin/python")).args(["-c", python, &url]));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_not_taken_for_whole() {
    let (gateway, simulator) = simulated(500).await;
    simulator.set_faults(Faults { expire_tokens: true, ..Faults::default() });
    let output = list(gateway.addr, &["--output", "jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).lines().count(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_by_its_exit_code() {
    let delayed = |config: &mut ssm_gateway::config::Config| config.edge.drain_delay = Duration::from_hours(1);
    let (gateway, _simulator) = simulated_with(1, delayed).await;
    let health = |server: &str, flags: &[&str]| {
        let output = Command::new(SSM_GATEWAY).args(["health", "--server", server]).args(flags).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    };
    let addr = gateway.addr.to_string();
    let admin = format!("http://{}", gateway.admin);
    let by_admin = &["--admin", &*admin][..];
    for flags in [&[][..], &["--service", ssm_gateway::service::SERVICE_NAME]] {
        assert_eq!(health(&addr, flags), (Some(0), "SERVING\n".to_owned()));
    }
    assert_eq!(health("https://nowhere", by_admin), (Some(0), "ok\n".to_owned()), "TLS or not");
    let (code, printed) = health(&addr, &["--service", "nobody"]);
    assert_eq!((code, printed.contains("no such service")), (Some(1), true), "{printed}");
    gateway.stop();
    let mut told = health(&addr, &[]);
    while told.0 == Some(0) {
        told = health(&addr, &[]);
    }
    assert_eq!(told, (Some(1), "error: the gateway reports NOT_SERVING\n".to_owned()));
    let (code, printed) = health(&addr, by_admin);
    assert_eq!(
        (code, printed.contains("503 Service Unavailable: the gateway is going away")),
        (Some(1), true),
        "{printed}"
    );
    // One that accepts, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let told = health(&silent.local_addr().unwrap().to_string(), &["--timeout", "300ms"]);
    assert_eq!(told, (Some(1), "error: the gateway did not answer in time\n".to_owned()));
}
