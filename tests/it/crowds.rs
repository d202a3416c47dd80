//! Many connections at once, and many in a row, by a process of their own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use ssm_gateway::{
    proto::DescribeInstanceInformationRequest,
    simulator::{self, Simulator},
};

use crate::{
    program::Program,
    proofs::Folder,
    support::{Client, root, simulator_of, tool, until, within},
};

/// `tests/peers/crowd.py`, which ends with its standard input.
struct Crowd {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Crowd {
    fn start(program: &Program, what: &[&str]) -> Self {
        let mut command = Command::new(tool("venv/bin/python"));
        command.arg(root().join("tests/peers/crowd.py")).arg(program.addr.to_string()).args(what);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// What it says next.
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn leaves(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

async fn crowded() -> (Program, Simulator, Folder) {
    let simulator = simulator_of(60).await;
    let folder = Folder::new();
    let config = "[log]\nfilter = 'warn,ssm_gateway::app=info'\n[listing]\nttl = '1h'\n";
    let program = Program::in_front_of(&simulator, &folder, config, "127.0.0.1:0", "");
    call(&program).await;
    (program, simulator, folder)
}

async fn call(program: &Program) {
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    within(client.describe_instance_information(DescribeInstanceInformationRequest::default())).await.unwrap();
}

/// How many file descriptors it has.
fn descriptors(program: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count()
}

/// Its memory in MiB.
fn memory(program: &Program) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

async fn hold(count: usize, most: f64) {
    let (program, ..) = crowded().await;
    let mut crowd = Crowd::start(&program, &["hold", &count.to_string()]);
    assert_eq!(crowd.says(), format!("held {count}"));
    let used = memory(&program);
    println!("{count} idle connections: {used:.0} MiB");
    assert!(used < most, "{used} MiB");
    call(&program).await;
    assert!(descriptors(&program) > count);
    crowd.leaves();
    until(|| descriptors(&program) < 40).await;
}

async fn churn(rate: u32, seconds: u32, is_measured: bool) {
    let (program, simulator, _folder) = crowded().await;
    let visit = |rate: u32, seconds: u32| {
        let mut crowd = Crowd::start(&program, &["churn", &rate.to_string(), &seconds.to_string()]);
        let said = crowd.says();
        crowd.leaves();
        assert!(said.contains("failed 0 []"), "{said}");
        let took: f64 = said.split(' ').nth(3).unwrap().parse().unwrap();
        // How fast that is says something where nothing else runs.
        assert!(!is_measured || took < f64::from(seconds) * 1.2 + 0.5, "it was to be {rate} a second: {said}");
        said
    };
    // What the process keeps once it was busy is not left behind by anyone.
    visit(rate, 2);
    let before = memory(&program);
    let said = visit(rate, seconds);
    until(|| descriptors(&program) < 40).await;
    let after = memory(&program);
    println!("{said}: {before:.1} MiB before, {after:.1} after");
    assert!(after < before + 10.0, "{before:.1} MiB before, {after:.1} after");
    // A call that goes on holds its listing, and the process.
    simulator.set_faults(simulator::Faults::default());
    call(&program).await;
    let log = program.stop();
    assert!(!log.contains("ending the calls"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_take_little() {
    hold(500, 80.0).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: eight thousand connections"]
async fn long_eight_thousand_idle_connections_take_less_than_500_mb() {
    hold(8000, 500.0 / 1.048_576).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_and_go_leave_nothing_behind() {
    churn(300, 2, false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: twenty seconds"]
async fn long_connections_that_come_and_go_leave_nothing_behind() {
    churn(1000, 20, true).await;
}
