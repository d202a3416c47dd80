//! What serving from memory costs: the release gateway over the simulator against the floor and the common way, in many
//! short interleaved rounds, since two identical servers differ by a tenth in one. `cargo bench --bench serving`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, and one that meets what it does not expect must fail"
)]

mod load;
mod process;
mod servers;

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{self, Simulator},
};

use self::{
    load::{DESCRIBE, Load, Round, STREAM, TOKEN_SHA256},
    process::Process,
    servers::Answers,
};

/// A stream of 200 full pages.
const NODES: usize = 10_000;
const ROUNDS: usize = 20;
const ROUND: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 4;
/// `guarded` is the gateway with all that an operator turns on: a token of each caller's, a rule that allows it, and a line of the log in
/// JSON for each call.
const ROLES: [&str; 4] = ["gateway", "guarded", "floor", "typed"];
const ROLE: &str = "SERVING_ROLE";
const ANSWERS: &str = "SERVING_ANSWERS";

#[tokio::main]
async fn main() {
    if let (Ok(role), Ok(path)) = (env::var(ROLE), env::var(ANSWERS)) {
        return servers::serve(&role, &path).await;
    }
    let folder = env::temp_dir().join(format!("ssm-gateway-serving-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let simulator = simulate(NODES).await;
    let servers = start(&simulator, &folder).await;
    println!("{NODES} nodes, {ROUNDS} rounds of {ROUND:?} each, {CONNECTIONS} connections; medians (least–most)\n");
    let page = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
    compare("unary: a cached page of 50 nodes, 16 calls at a time on each connection", &servers, 16, DESCRIBE, &page)
        .await;
    let stream = StreamInstanceInformationRequest::default();
    compare("stream: 200 cached pages, 2 streams at a time on each connection", &servers, 2, STREAM, &stream).await;
    memory(&simulator, &folder).await;
    drop(servers);
    cold_storm(&folder).await;
    fs::remove_dir_all(&folder).unwrap();
}

async fn simulate(nodes: usize) -> Simulator {
    simulator::Config { nodes, ..simulator::Config::default() }.start().await.unwrap()
}

/// The gateway, as it is released. Only where it is guarded it logs calls.
fn gateway(simulator: &Simulator, folder: &Path, is_guarded: bool) -> Process {
    let config = folder.join(if is_guarded { "guarded.toml" } else { "gateway.toml" });
    let guards = format!(
        "[log]\nformat = \"json\"\n[[auth.tokens]]\nname = \"bench\"\nsha256 = \"{TOKEN_SHA256}\"\n\
         [[allow]]\nprincipal = \"token:bench\"\n"
    );
    let quiet = "[log]\nfilter = \"warn,ssm_gateway::app=info\"\n".to_owned();
    let rest = if is_guarded { guards } else { quiet };
    let listen = "[edge]\nlisten = \"127.0.0.1:0\"";
    let text = format!("{listen}\n[upstream]\nrequests_per_second = 1e6\n[listing]\nttl = \"1h\"\n{rest}");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssm-gateway"));
    command.args(["serve", "--region", "us-east-1", "--endpoint-url", &simulator.url(), "--config"]).arg(config);
    command.envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
    let mut process = Process::start(&mut command);
    process.is_guarded = is_guarded;
    process
}

/// This program in another role.
fn other(role: &str, answers: &Path) -> Process {
    let mut command = Command::new(env::current_exe().unwrap());
    Process::start(command.env(ROLE, role).env(ANSWERS, answers))
}

/// Starts the gateway, fills its listing, and lets the others serve the same bytes; in the order of [`ROLES`].
async fn start(simulator: &Simulator, folder: &Path) -> Vec<Process> {
    let [guarded, gateway] = [true, false].map(|is_guarded| gateway(simulator, folder, is_guarded));
    stream(&guarded).await;
    let answers = Answers { page: describe(&gateway).await, stream: stream(&gateway).await };
    assert_eq!(answers.stream.len(), NODES / 50);
    let streamed: usize = answers.stream.iter().map(Bytes::len).sum();
    println!("a page is {} bytes, a stream {streamed}", answers.page.len());
    let path = folder.join("answers");
    answers.write(&path).unwrap();
    vec![gateway, guarded, other("floor", &path), other("typed", &path)]
}

async fn describe(server: &Process) -> Bytes {
    let request = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
    let load = Load::connect(server, 1, DESCRIBE, &request).await;
    load.call(load.channel()).await.unwrap().remove(0)
}

async fn stream(server: &Process) -> Vec<Bytes> {
    let load = Load::connect(server, 1, STREAM, &StreamInstanceInformationRequest::default()).await;
    load.call(load.channel()).await.unwrap()
}

/// What one server came to over all rounds.
#[derive(Default)]
struct Tally {
    cpu_micros: Vec<f64>,
    rate: Vec<f64>,
    p50_micros: Vec<f64>,
    p99_micros: Vec<f64>,
}

impl Tally {
    #[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
    fn add(&mut self, cpu: Duration, mut round: Round) {
        round.calls.sort_unstable();
        let calls = round.calls.len();
        let at = |percent: usize| round.calls[(calls * percent / 100).min(calls - 1)].as_secs_f64() * 1e6;
        self.cpu_micros.push(cpu.as_secs_f64() * 1e6 / calls as f64);
        self.rate.push(calls as f64 / round.took.as_secs_f64());
        self.p50_micros.push(at(50));
        self.p99_micros.push(at(99));
    }
}

/// The median, the least and the most.
fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut figures = figures.to_vec();
    figures.sort_unstable_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}

/// Loads all servers in turn, and prints what each costs, and the ratios.
async fn compare(
    what: &str,
    servers: &[Process],
    concurrency: usize,
    path: &'static str,
    request: &impl prost::Message,
) {
    let mut loads = Vec::new();
    for process in servers {
        let load = Load::connect(process, CONNECTIONS, path, request).await;
        load.round(concurrency, ROUND / 2).await;
        loads.push(load);
    }
    let mut tallies: Vec<Tally> = ROLES.iter().map(|_| Tally::default()).collect();
    for _ in 0..ROUNDS {
        for ((process, load), tally) in servers.iter().zip(&loads).zip(&mut tallies) {
            let before = process.cpu();
            let round = load.round(concurrency, ROUND).await;
            tally.add(process.cpu().saturating_sub(before), round);
        }
    }
    println!("{what}");
    println!("  {:8} {:>26} {:>26} {:>26} {:>26}", "", "CPU µs a call", "calls/s", "p50 µs", "p99 µs");
    for (role, tally) in ROLES.iter().zip(&tallies) {
        let columns = [&tally.cpu_micros, &tally.rate, &tally.p50_micros, &tally.p99_micros].map(|figures| {
            let (median, least, most) = spread(figures);
            format!("{median:.1} ({least:.1}–{most:.1})")
        });
        println!("  {role:8} {:>26} {:>26} {:>26} {:>26}", columns[0], columns[1], columns[2], columns[3]);
    }
    let cpu = |index: usize| spread(&tallies[index].cpu_micros).0;
    let rate = |index: usize| spread(&tallies[index].rate).0;
    println!(
        "  CPU: {:.2} of the floor's, guarded {:.2}; the typed way costs {:.2} times the gateway's",
        cpu(0) / cpu(2),
        cpu(1) / cpu(2),
        cpu(3) / cpu(0)
    );
    println!("  calls/s: {:.2} of the floor's, {:.2} of the typed way's\n", rate(0) / rate(2), rate(0) / rate(3));
}

/// The peak of memory under 64 streams at a time, over what there was before.
async fn memory(simulator: &Simulator, folder: &Path) {
    const STREAMS: usize = 64;
    let mut grown = Vec::new();
    println!("memory: {STREAMS} streams of 200 pages at a time, medians of 5");
    for role in ROLES {
        let mut peaks = Vec::new();
        for _ in 0..5 {
            let process = match role {
                "gateway" | "guarded" => gateway(simulator, folder, role == "guarded"),
                role => other(role, &folder.join("answers")),
            };
            stream(&process).await;
            let load = Load::connect(&process, CONNECTIONS, STREAM, &StreamInstanceInformationRequest::default()).await;
            process.forget_peak();
            let (before, _) = process.memory();
            load.burst(STREAMS).await;
            let (_, peak) = process.memory();
            #[expect(clippy::cast_precision_loss, reason = "KiB of memory are far below 2^52")]
            peaks.push([(peak - before) as f64, peak as f64]);
        }
        let (growth, least, most) = spread(&peaks.iter().map(|peak| peak[0]).collect::<Vec<_>>());
        let (peak, ..) = spread(&peaks.iter().map(|peak| peak[1]).collect::<Vec<_>>());
        println!(
            "  {role:8} grows by {:.1} MiB ({:.1}–{:.1}) to {:.1} MiB",
            growth / 1024.0,
            least / 1024.0,
            most / 1024.0,
            peak / 1024.0
        );
        grown.push(growth);
    }
    println!("  growth: {:.2} of the floor's, {:.2} of the typed way's\n", grown[0] / grown[2], grown[0] / grown[3]);
}

/// A thousand callers at once of a gateway that knows nothing yet.
async fn cold_storm(folder: &Path) {
    const NODES: usize = 1237;
    println!("cold storm: 1,000 callers at once stream {NODES} nodes");
    for _ in 0..3 {
        let simulator = simulate(NODES).await;
        let process = gateway(&simulator, folder, false);
        let load = Load::connect(&process, 16, STREAM, &StreamInstanceInformationRequest::default()).await;
        let started = Instant::now();
        let bytes = load.burst(1000).await;
        println!(
            "  {:?} in all, {:?} CPU, {} MiB answered, {} calls upstream",
            started.elapsed(),
            process.cpu(),
            bytes >> 20,
            simulator.stats().calls
        );
        assert_eq!(simulator.stats().calls, 25);
    }
}
