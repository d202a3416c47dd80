//! What an operator sees of the faults that wake one: in the status, and in a real Prometheus that goes by the rules and the dashboard of
//! `deploy/`.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use ssm_gateway::{
    config::Target,
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{FailureKind, Faults, Scope, Simulator},
};
use tokio::time::{self, Instant};
use tonic::transport::Channel;

use crate::{
    http::{get, metrics, status},
    proofs::Folder,
    support::{
        Client, Gateway, Running, failing, filter, filtered, root, run, simulated_with, simulator_of, tool, within,
    },
};

/// The faults, by the alerts that tell of them.
const FAULTS: [&str; 5] = [
    "SsmGatewayThrottled",
    "SsmGatewayTargetDenied",
    "SsmGatewayTargetUnavailable",
    "SsmGatewaySlowReader",
    "SsmGatewayEvictions",
];
/// By when each of them is seen.
const SEEN: Duration = Duration::from_secs(15);

/// A Prometheus that looks every second; dropping it ends it.
struct Prometheus {
    addr: SocketAddr,
    _child: Running,
    _folder: Folder,
}

impl Prometheus {
    /// Looks at these gateways.
    async fn watching(gateways: &[&Gateway]) -> Self {
        let folder = Folder::new();
        let rules = root().join("deploy/prometheus/rules.yaml");
        let targets: Vec<String> = gateways.iter().map(|gateway| format!("'{}'", gateway.admin)).collect();
        let config = folder.write(
            "prometheus.yml",
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
                 scrape_configs: [{{job_name: ssm-gateway, static_configs: [{{targets: [{}]}}]}}]\n",
                rules.display(),
                targets.join(", ")
            ),
        );
        let mut child = Command::new(tool("bin/prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let child = Running(child);
        let addr = address_in(&mut log);
        // Nobody reads what it logs from here on, and a full pipe would stop it.
        std::thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        let prometheus = Self { addr, _child: child, _folder: folder };
        within(async {
            while get(addr, "/-/ready").await.0 != 200 {
                time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        prometheus
    }

    async fn ask(&self, path: &str) -> Value {
        let (code, body) = get(self.addr, path).await;
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
    }

    /// What comes of a query.
    async fn query(&self, expr: &str) -> Vec<Value> {
        let expr: String = form_urlencoded::byte_serialize(expr.as_bytes()).collect();
        self.ask(&format!("/api/v1/query?query={expr}")).await["result"].as_array().unwrap().clone()
    }

    /// The alerts that are pending or firing.
    async fn alerts(&self) -> BTreeSet<String> {
        let alerts = self.ask("/api/v1/alerts").await["alerts"].as_array().unwrap().clone();
        alerts.iter().map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }
}

/// The address at which Prometheus logs that it listens.
fn address_in(log: &mut impl BufRead) -> SocketAddr {
    let mut read = String::new();
    while log.read_line(&mut read).unwrap() > 0 {
        let line = read.lines().last().unwrap();
        if line.contains("Listening on") {
            return line.rsplit("address=").next().unwrap().parse().unwrap();
        }
    }
    panic!("Prometheus does not listen: {read}");
}

fn rules() -> String {
    fs::read_to_string(root().join("deploy/prometheus/rules.yaml")).unwrap()
}

/// The names of all alerts.
fn alert_names() -> Vec<String> {
    rules().lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

/// Every query of the dashboard, its variables filled in.
fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| match value {
                Value::String(text) if name == "expr" => into.push(text.clone()),
                _ => collect(value, into),
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let text = fs::read_to_string(root().join("deploy/grafana/ssm-gateway.json")).unwrap();
    let mut queries = Vec::new();
    collect(&serde_json::from_str(&text).unwrap(), &mut queries);
    let filled = [("$__rate_interval", "1m"), ("$target", ".*"), ("$instance", ".*")];
    queries
        .iter()
        .map(|query| filled.iter().fold(query.clone(), |query, (name, value)| query.replace(name, value)))
        .collect()
}

/// The names of this project's metrics that a text has.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let is_metric =
        |word: &&str| ["ssm_gateway_", "rpc_server_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(is_metric).map(str::to_owned).collect()
}

/// Three targets, of which each is to fail in its own way, one whose nodes fill a stream, and room for all.
async fn gateway(simulator: &Simulator) -> Gateway {
    Gateway::at(&simulator.url(), |config| {
        config.listing.hold_off = Duration::from_millis(200);
        config.listing.max_hold_off = Duration::from_millis(200);
        config.upstream.sts_endpoint_url = Some(simulator.url());
        for (name, region) in
            [("storm", "us-east-1"), ("denied", "us-east-2"), ("down", "us-west-1"), ("slow", "eu-west-1")]
        {
            let role_arn = (name == "denied").then(|| "arn:aws:iam::111122223333:role/SsmReader".to_owned());
            let target = Target { region: Some(region.to_owned()), role_arn, ..Target::default() };
            config.targets.insert(name.into(), target);
        }
        config.default_target = Some("slow".into());
    })
    .await
}

/// Keeps asking of the targets that fail.
async fn keep_asking(gateway: &Gateway) {
    loop {
        for target in ["storm", "denied", "down"] {
            let request = DescribeInstanceInformationRequest { target: target.to_owned(), ..Default::default() };
            let _failed = gateway.describe(request).await;
        }
        time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks more different questions than there is room for.
async fn crowd_out(gateway: &Gateway) {
    for question in 0.. {
        let other = filter("AgentVersion", &[&format!("3.{question}"), "3.2.2303.0"]);
        gateway.describe(filtered(vec![other])).await.unwrap();
        time::sleep(Duration::from_millis(20)).await;
    }
}

/// A storm, a denied role, and a region that is down.
fn let_all_fail(simulator: &Simulator) {
    let home = |region: &str| Scope::new("123456789012", region);
    simulator.set_faults_of(home("us-east-1"), failing(FailureKind::Throttling));
    simulator.set_faults_of(home("us-west-1"), failing(FailureKind::Reset));
    let denied_roles = vec!["SsmReader".to_owned()];
    simulator.set_faults_of(Scope::new("111122223333", "us-east-2"), Faults { denied_roles, ..Faults::default() });
}

/// The faults of the gateway's own targets, and its slow caller.
async fn assert_status_tells(gateway: &Gateway) {
    let status_of = status(gateway.admin).await;
    let targets = status_of["targets"].as_array().unwrap();
    let target = |name: &str| targets.iter().find(|target| target["name"] == name).unwrap();
    assert!(target("storm")["throttled"].as_u64().unwrap() > 0);
    assert!(target("storm")["rate"].as_f64().unwrap() < target("storm")["max_rate"].as_f64().unwrap());
    assert_eq!(target("denied")["state"], "denied");
    assert!(["unavailable", "breaker_open"].contains(&target("down")["state"].as_str().unwrap()));
    for (name, what) in [("denied", "denied"), ("down", "could not be reached")] {
        assert!(target(name)["last_error"]["what"].as_str().unwrap().contains(what), "{}", target(name));
    }
    let listings = status_of["listings"].as_array().unwrap();
    let slowest =
        listings.iter().map(|listing| listing["slowest_reader_seconds"].as_f64().unwrap()).fold(0.0, f64::max);
    assert!(slowest > 5.0, "{slowest}");
}

/// Each of the faults, and something of all else that goes on.
async fn assert_dashboard_shows(prometheus: &Prometheus) {
    let queries = dashboard_queries();
    for (fault, metric) in FAULTS.iter().zip([
        "upstream_fetch_duration_seconds_count",
        "target_state",
        "target_state",
        "slowest_reader_seconds",
        "listing_evictions_total",
    ]) {
        let mut values = Vec::new();
        for query in queries.iter().filter(|query| query.contains(metric)) {
            values.extend(
                prometheus.query(query).await.iter().map(|sample| sample["value"][1].as_str().unwrap().to_owned()),
            );
        }
        assert!(values.iter().any(|value| value.parse::<f64>().unwrap() > 0.0), "no panel shows {fault}: {values:?}");
    }
    let mut shown = 0;
    for query in &queries {
        shown += usize::from(!prometheus.query(query).await.is_empty());
    }
    assert!(shown > 25, "{shown} queries have an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_seen_within_fifteen_seconds() {
    let simulator = simulator_of(5000).await;
    let gateway = gateway(&simulator).await;
    let (small, _simulator) = simulated_with(500, |config| config.listing.max_bytes = 200 << 10).await;
    let prometheus = Prometheus::watching(&[&gateway, &small]).await;
    within(async {
        while prometheus.query("count_over_time(up[1m]) > 2").await.len() < 2 {
            time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(prometheus.alerts().await, BTreeSet::new(), "all is well");

    let_all_fail(&simulator);
    let began = Instant::now();
    let caller = Channel::from_shared(format!("http://{}", gateway.addr)).unwrap();
    let mut caller = Client::new(within(caller.initial_stream_window_size(65_535).connect()).await.unwrap());
    let everything = StreamInstanceInformationRequest::default();
    let _unread = within(caller.stream_instance_information(everything)).await.unwrap();
    let missing = async {
        loop {
            let seen = prometheus.alerts().await;
            if FAULTS.iter().all(|fault| seen.contains(*fault)) {
                break;
            }
            assert!(began.elapsed() < SEEN, "of {FAULTS:?} only {seen:?} is seen");
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = missing => {}
        () = keep_asking(&gateway) => {}
        () = crowd_out(&small) => {}
    }

    assert_status_tells(&gateway).await;
    assert!(status(small.admin).await["memory"]["evictions"].as_u64().unwrap() > 0);
    assert_dashboard_shows(&prometheus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_the_dashboard_and_the_reference_name_is_exported() {
    let simulator = simulator_of(1).await;
    let gateway = gateway(&simulator).await;
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    let samples = metrics(gateway.admin).await;
    let exported: BTreeSet<String> =
        samples.keys().flat_map(|sample| named(sample.split('{').next().unwrap())).collect();
    let reference = fs::read_to_string(root().join("OPERATIONS.md")).unwrap();
    let (mut families, mut names) = (BTreeSet::new(), named(&rules()));
    names.extend(dashboard_queries().iter().flat_map(|query| named(query)));
    let told = reference.split('`').skip(1).step_by(2).filter(|word| word.bytes().all(|byte| byte.is_ascii_graphic()));
    let told = told.filter(|word| !word.contains('…') && named(word).contains(*word)).map(|word| {
        let is_histogram = word.ends_with("_duration_seconds") || word.ends_with("_wait_seconds");
        if is_histogram { format!("{word}_count") } else { word.to_owned() }
    });
    names.extend(told);
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(exported.contains(&name), "{name} is not exported");
    }
    for name in exported {
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name).to_owned();
        families.insert(family);
    }
    for family in families.iter().filter(|family| !family.starts_with("process_")) {
        // The reference shortens those that begin like the one before.
        let is_told = reference.contains(&format!("`{family}`"))
            || family.match_indices('_').any(|(at, _)| reference.contains(&format!("`…{}`", &family[at..])));
        assert!(is_told, "{family} is not in OPERATIONS.md");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let reference = fs::read_to_string(root().join("OPERATIONS.md")).unwrap();
    let names = alert_names();
    assert!(names.len() > 10 && FAULTS.iter().all(|fault| names.iter().any(|name| name == fault)));
    for name in names {
        let row = format!("| <a id=\"{}\"></a>**{name}**", name.to_lowercase());
        assert!(reference.contains(&row), "{name} has no row in OPERATIONS.md");
        assert!(rules().contains(&format!("OPERATIONS.md#{}", name.to_lowercase())), "{name} leads nowhere");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules_and_the_dashboard() {
    run(Command::new(root().join("deploy/check")).arg(tool("bin/promtool")));
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let simulator = simulator_of(1).await;
    let gateway = gateway(&simulator).await;
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    let folder = Folder::new();
    let file = folder.write("metrics", get(gateway.admin, "/metrics").await.1);
    let mut promtool = Command::new(tool("bin/promtool"));
    run(promtool.args(["check", "metrics"]).stdin(fs::File::open(file).unwrap()));
}
