//! Forty accounts at once, some of them broken or throttled. The long forms run in release, by
//! `cargo test --release -- --ignored`.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use ssm_gateway::{
    config::Target,
    proto::{ReadOptions, StreamInstanceInformationRequest, Unreachable},
    simulator::{FailureKind, Faults, Rate, Scope, Simulator},
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Gateway, failing, filter, filtered, simulator_of, within};

const REGION: &str = "eu-west-1";

fn account(target: usize) -> String {
    format!("{:012}", 100_000_000_000 + target)
}

fn name(target: usize) -> String {
    format!("team-{target:02}")
}

/// So many targets, each an account of its own with so many nodes; their fetches have this long.
async fn teams(targets: usize, nodes: usize, fetch_timeout: Duration) -> (Gateway, Simulator) {
    let simulator = simulator_of(nodes).await;
    let url = simulator.url();
    let gateway = Gateway::at(&url, |config| {
        config.upstream.sts_endpoint_url = Some(url.clone());
        config.upstream.fetch_timeout = fetch_timeout;
        for target in 0..targets {
            let role_arn = Some(format!("arn:aws:iam::{}:role/SsmReader", account(target)));
            let region = Some(REGION.to_owned());
            config.targets.insert(name(target).as_str().into(), Target { region, role_arn, ..Target::default() });
        }
    });
    (gateway.await, simulator)
}

/// What a stream over all targets brought.
#[derive(Default)]
struct Seen {
    ids: BTreeMap<String, Vec<String>>,
    /// In their order, with how many nodes there were of all by then.
    unreachable: Vec<(String, Unreachable, usize)>,
    /// When the last message of each target came.
    ended: BTreeMap<String, Duration>,
}

async fn stream(gateway: &Gateway) -> Seen {
    let started = Instant::now();
    let request = StreamInstanceInformationRequest { targets: vec!["*".to_owned()], ..Default::default() };
    let mut pages = within(gateway.client.clone().stream_instance_information(request)).await.unwrap().into_inner();
    let mut seen = Seen::default();
    while let Some(page) = within(pages.message()).await.unwrap() {
        let ids = page.instance_information_list.iter().map(|node| node.instance_id().to_owned());
        seen.ids.entry(page.target.clone()).or_default().extend(ids);
        let nodes = seen.ids.values().map(Vec::len).sum();
        seen.unreachable.extend(page.unreachable.map(|unreachable| (page.target.clone(), unreachable, nodes)));
        seen.ended.insert(page.target, started.elapsed());
    }
    seen
}

/// Two of the targets are denied, one hangs; the rest is whole.
async fn broken_teams(targets: usize, nodes: usize, fetch_timeout: Duration) -> Seen {
    let (gateway, simulator) = teams(targets, nodes, fetch_timeout).await;
    let of = |target| Scope::new(&account(target), REGION);
    simulator.set_faults_of(of(1), failing(FailureKind::AccessDenied));
    let denied_roles = vec!["SsmReader".to_owned()];
    simulator.set_faults_of(of(2), Faults { denied_roles, ..Faults::default() });
    simulator.set_faults_of(of(3), failing(FailureKind::Hang));
    let seen = stream(&gateway).await;
    let healthy = targets - 3;
    let mut all = HashSet::new();
    for target in (0..targets).filter(|target| !(1..=3).contains(target)) {
        assert_eq!(seen.ids[&name(target)].len(), nodes);
        all.extend(&seen.ids[&name(target)]);
    }
    assert_eq!(all.len(), healthy * nodes, "exactly once each, and of no other account");
    let told: BTreeMap<_, _> = seen
        .unreachable
        .iter()
        .map(|(target, unreachable, _)| (target.as_str(), (Code::from(unreachable.code), unreachable.reason.as_str())))
        .collect();
    let denied = (Code::PermissionDenied, "AWS_ACCESS_DENIED");
    let hung = (Code::Unavailable, "TARGET_UNAVAILABLE");
    assert_eq!(told, [("team-01", denied), ("team-02", denied), ("team-03", hung)].into());
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_targets_hold_no_other_up() {
    let seen = broken_teams(12, 130, Duration::from_secs(3)).await;
    let last = seen.unreachable.last().unwrap();
    assert_eq!((&*last.0, last.2), ("team-03", 9 * 130), "nobody waited for the one that hangs");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: in release"]
async fn long_three_broken_targets_of_forty_hold_no_other_up() {
    let (alone, _simulator) = teams(37, 5_000, Duration::from_secs(5)).await;
    let alone = stream(&alone).await.ended.into_values().max().unwrap();
    let beside = broken_teams(40, 5_000, Duration::from_secs(5)).await;
    let last = beside.ended.iter().filter(|(target, _)| !["team-01", "team-02", "team-03"].contains(&&***target));
    let last = *last.map(|(_, ended)| ended).max().unwrap();
    println!("37 healthy targets alone: {alone:?}, beside three broken ones: {last:?}");
    assert!(last < alone * 3 / 2, "{last:?} beside broken ones, {alone:?} without");
}

#[tokio::test]
async fn whoever_finds_the_line_full_is_told_when_to_come_back() {
    let simulator = simulator_of(5).await;
    let gateway = Gateway::at(&simulator.url(), |config| {
        (config.upstream.requests_per_second, config.upstream.longest_line) = (0.3, 1);
    })
    .await;
    let ask = |value: &str| gateway.describe(filtered(vec![filter("PingStatus", &[value])]));
    ask("Online").await.unwrap();
    let (one, other) = tokio::join!(ask("Inactive"), ask("ConnectionLost"));
    assert_ne!(one.is_ok(), other.is_ok(), "one waits for its turn, the line is full for the other: {one:?} {other:?}");
    let status = one.err().or(other.err()).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_error_info().unwrap().reason, "OVERLOADED");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
}

/// AWS allows three calls a second where the gateway is configured for ten.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: two and a half minutes"]
async fn long_a_throttled_target_settles_at_its_limit_and_comes_back() {
    let simulator = simulator_of(500).await;
    let gateway = Gateway::at(&simulator.url(), |config| {
        config.upstream.requests_per_second = 10.0;
        for (name, region) in [("slow", "eu-west-1"), ("quick", "us-east-1")] {
            config.targets.insert(name.into(), Target { region: Some(region.to_owned()), ..Target::default() });
        }
    })
    .await;
    let scope = Scope::new("123456789012", "eu-west-1");
    let limited = Faults { rate: Some(Rate { per_second: 3.0, burst: 3.0 }), ..Faults::default() };
    simulator.set_faults_of(scope.clone(), limited);
    // More is wanted of both than either may be asked.
    let callers: Vec<_> = (0..40)
        .map(|caller| {
            let (mut client, target) = (gateway.client.clone(), ["slow", "quick"][caller % 2].to_owned());
            tokio::spawn(async move {
                loop {
                    let request = StreamInstanceInformationRequest {
                        filters: vec![filter("PingStatus", &["Online", &format!("caller {}", caller % 8)])],
                        targets: vec![target.clone()],
                        read_options: Some(ReadOptions {
                            max_age: Some(prost_types::Duration::default()),
                            max_stale: None,
                        }),
                        ..Default::default()
                    };
                    if let Ok(pages) = client.stream_instance_information(request).await {
                        let mut pages = pages.into_inner();
                        while let Ok(Some(_)) = pages.message().await {}
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    let calls =
        |region: &str| simulator.stats().calls_by_scope.get(&format!("123456789012/{region}")).copied().unwrap_or(0);
    let during = async |seconds: u64| {
        let before = (calls("eu-west-1"), simulator.stats().throttled, calls("us-east-1"));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (slow, throttled) = (calls("eu-west-1") - before.0, simulator.stats().throttled - before.1);
        let quick = calls("us-east-1") - before.2;
        println!("in {seconds} s: {slow} calls, {throttled} throttled; of the other {quick}");
        (slow, throttled, quick)
    };
    during(20).await;
    let (slow, throttled, quick) = during(50).await;
    assert!(throttled * 10 < slow, "{throttled} of {slow}");
    assert!((slow - throttled) * 10 > 8 * 3 * 50, "{slow}, {throttled} of them throttled");
    assert!(quick >= 450, "the other target never slows down: {quick}");
    simulator.set_faults_of(scope, Faults::default());
    during(60).await;
    let (slow, ..) = during(10).await;
    assert!(slow >= 90, "{slow}");
    callers.iter().for_each(tokio::task::JoinHandle::abort);
}
