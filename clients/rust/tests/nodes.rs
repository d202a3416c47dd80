//! The client against a running gateway, which `clients/test` starts.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use futures_util::TryStreamExt as _;
use nodes::{
    Gateway, Problem, explain,
    proto::{
        DescribeInstanceInformationRequest, InstanceInformation, InstanceInformationStringFilter, ReadOptions,
        StreamInstanceInformationRequest, StreamInstanceInformationResponse,
    },
};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(60);

fn read(name: &str) -> String {
    fs::read_to_string(env::var(name).unwrap()).unwrap()
}

fn at(address: &str, token: &str) -> Gateway {
    let ca = read("SSM_GATEWAY_TLS_CA");
    Gateway::new(&env::var(address).unwrap(), Some(ca.as_bytes()), Some(token)).unwrap()
}

fn gateway() -> Gateway {
    at("SSM_GATEWAY_ADDRESS", &read("SSM_GATEWAY_TOKEN_FILE"))
}

fn filter(key: &str, values: &[&str]) -> InstanceInformationStringFilter {
    let values = values.iter().map(|value| String::from(*value)).collect();
    InstanceInformationStringFilter { key: Some(key.to_owned()), values }
}

/// Compares with what boto3 reads.
fn is_fleet(nodes: &[InstanceInformation]) {
    let contract = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
    let pool = DescriptorPool::decode(contract.as_slice()).unwrap();
    let descriptor = pool.get_message_by_name("ssm_gateway.v1.InstanceInformation").unwrap();
    let json = |node: &InstanceInformation| {
        let mut message = DynamicMessage::new(descriptor.clone());
        message.transcode_from(node).unwrap();
        serde_json::to_value(message).unwrap()
    };
    let fleet: Vec<Value> = serde_json::from_str(&read("FLEET")).unwrap();
    assert_eq!(nodes.iter().map(json).collect::<Vec<_>>(), fleet);
}

async fn all_pages(
    gateway: Gateway,
    timeout: Duration,
    request: DescribeInstanceInformationRequest,
) -> Result<Vec<InstanceInformation>, Status> {
    gateway.pages(timeout, request).try_collect().await
}

async fn whole_stream(gateway: Gateway, request: StreamInstanceInformationRequest) -> Vec<InstanceInformation> {
    let pages: Vec<StreamInstanceInformationResponse> = gateway.stream(PATIENCE, request).try_collect().await.unwrap();
    pages.into_iter().flat_map(|page| page.instance_information_list).collect()
}

fn of(target: &str) -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest { target: target.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn pages() {
    is_fleet(&all_pages(gateway(), PATIENCE, of("")).await.unwrap());
}

#[tokio::test]
async fn stream() {
    is_fleet(&whole_stream(gateway(), StreamInstanceInformationRequest::default()).await);
}

#[tokio::test]
async fn cut() {
    // Each connection breaks before half of a fleet, and for a while after the first every connection is closed.
    let gateway = at("CUT_ADDRESS", &read("SSM_GATEWAY_TOKEN_FILE"));
    let targets = ["fleet", "other", "denied"].map(String::from).into();
    let mut pages = pin!(gateway.stream(PATIENCE, StreamInstanceInformationRequest { targets, ..Default::default() }));
    let (mut fleets, mut reasons) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
    while let Some(page) = pages.try_next().await.unwrap() {
        if let Some(unreachable) = page.unreachable {
            reasons.insert(page.target, unreachable.reason);
        } else {
            fleets.entry(page.target).or_default().extend(page.instance_information_list);
        }
    }
    is_fleet(&fleets["fleet"]);
    let others: HashSet<_> = fleets["other"].iter().map(|node| &node.instance_id).collect();
    assert_eq!((others.len(), fleets["other"].len()), (fleets["fleet"].len(), fleets["fleet"].len()));
    assert_eq!(
        reasons,
        HashMap::from([("denied", "AWS_ACCESS_DENIED")].map(|(target, reason)| (target.to_owned(), reason.to_owned())))
    );
}

#[tokio::test]
async fn slow_reader() {
    let now = ReadOptions { max_age: Some(prost_types::Duration::default()), max_stale: None };
    let large = StreamInstanceInformationRequest {
        targets: vec![String::from("large")],
        read_options: Some(now),
        ..Default::default()
    };
    let gateway = gateway();
    let mut slow = pin!(gateway.stream(PATIENCE, large.clone()));
    slow.try_next().await.unwrap();
    // Another reader reads a walk of the same length to its end.
    let filters = vec![filter("PlatformTypes", &["Linux", "Windows", "MacOS"])];
    assert!(whole_stream(gateway.clone(), StreamInstanceInformationRequest { filters, ..large }).await.len() > 10_000);
    let resumed = SystemTime::now();
    let rest: Vec<_> = slow.try_collect().await.unwrap();
    let asked = rest[rest.len() / 2].as_of.unwrap();
    assert!(SystemTime::try_from(asked).unwrap() > resumed, "AWS was asked for what nobody read");
}

#[tokio::test]
async fn wrong_filter() {
    let filters = vec![filter("Color", &["red"])];
    let request = DescribeInstanceInformationRequest { filters, ..Default::default() };
    let status = all_pages(gateway(), PATIENCE, request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "UnknownKey filter Key is invalid."));
    let (reason, fields) = (String::from("VALIDATION"), vec![String::from("filters")]);
    assert_eq!(explain(&status), Problem { reason, fields, retry_delay: None });
}

#[tokio::test]
async fn denied() {
    let status = all_pages(gateway(), PATIENCE, of("denied")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let problem = explain(&status);
    assert_eq!(problem.reason, "AWS_ACCESS_DENIED");
    assert!(problem.retry_delay.unwrap() > Duration::ZERO);
}

#[tokio::test]
async fn throttle() {
    // AWS throttles once, and advises a delay longer than all retries that ignore it would take together.
    let started = Instant::now();
    assert_eq!(all_pages(gateway(), PATIENCE, of("throttled-rust")).await.unwrap().len(), 1237);
    assert!(started.elapsed() > Duration::from_secs(2));
}

#[tokio::test]
async fn throttled_stream() {
    // The error precedes the headers of an answer; otherwise no policy would retry it.
    let started = Instant::now();
    let targets = vec![String::from("throttled-rust-stream")];
    let nodes = whole_stream(gateway(), StreamInstanceInformationRequest { targets, ..Default::default() }).await;
    assert_eq!(nodes.len(), 1237);
    assert!(started.elapsed() > Duration::from_secs(2));
}

#[tokio::test]
async fn deadline() {
    let (started, limit) = (Instant::now(), Duration::from_millis(300));
    let status = all_pages(gateway(), limit, of("silent")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let silent = StreamInstanceInformationRequest { targets: vec![String::from("silent")], ..Default::default() };
    let status = gateway().stream(limit, silent).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn wrong_token() {
    let status = all_pages(at("SSM_GATEWAY_ADDRESS", "wrong"), PATIENCE, of("")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(explain(&status).reason, "UNAUTHENTICATED");
}
