//! How old an answer is and how it came, as callers are told.

use std::time::Duration;

use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, ReadOptions, StreamInstanceInformationRequest},
    simulator::{FailureKind, Faults, Simulator},
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Gateway, failing, simulated, simulated_with, until, within};

fn read_options(max_age: Option<u64>, max_stale: Option<u64>) -> ReadOptions {
    let of = |seconds: Option<u64>| seconds.map(|seconds| Duration::from_secs(seconds).try_into().unwrap());
    ReadOptions { max_age: of(max_age), max_stale: of(max_stale) }
}

/// The `age` and `cache-status` of an answer.
async fn told(gateway: &Gateway, request: DescribeInstanceInformationRequest) -> (u64, String) {
    let answer = within(gateway.client.clone().describe_instance_information(request)).await.unwrap();
    let text = |name| answer.metadata().get(name).unwrap().to_str().unwrap().to_owned();
    (text("age").parse().unwrap(), text("cache-status"))
}

fn reading(max_age: Option<u64>, max_stale: Option<u64>) -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest { read_options: Some(read_options(max_age, max_stale)), ..Default::default() }
}

/// The seconds that `ssm-gateway; hit; ttl=…` tells.
fn ttl(cache_status: &str) -> i64 {
    cache_status.strip_prefix("ssm-gateway; hit; ttl=").expect(cache_status).parse().unwrap()
}

#[tokio::test]
async fn an_answer_tells_whether_it_was_a_miss_or_a_hit_or_forced() {
    let (gateway, simulator) = simulated(20).await;
    assert_eq!(told(&gateway, reading(None, None)).await.1, "ssm-gateway; fwd=uri-miss");
    let (age, status) = told(&gateway, reading(None, None)).await;
    assert!(age < 10 && (40..=66).contains(&ttl(&status)), "{age} {status}");
    let (_, status) = told(&gateway, reading(Some(600), None)).await;
    assert!((580..600).contains(&ttl(&status)), "by the age that the caller accepts: {status}");
    assert_eq!(told(&gateway, reading(Some(0), None)).await.1, "ssm-gateway; fwd=request");
    assert_eq!(simulator.stats().calls, 2);
}

#[tokio::test]
async fn who_waits_for_another_callers_fetch_is_told_so() {
    let (gateway, simulator) = simulated(20).await;
    simulator.set_faults(Faults { latency: Duration::from_millis(500), ..Faults::default() });
    let (one, other) = tokio::join!(told(&gateway, reading(None, None)), told(&gateway, reading(None, None)));
    let mut statuses = [one.1, other.1];
    statuses.sort_unstable();
    assert_eq!(statuses, ["ssm-gateway; fwd=uri-miss", "ssm-gateway; fwd=uri-miss; collapsed"]);
    assert_eq!(simulator.stats().calls, 1);
}

/// A gateway whose listing is stale at once, and given so.
async fn stale_at_once() -> (Gateway, Simulator) {
    simulated_with(120, |config| {
        (config.listing.ttl, config.listing.max_stale) = (Duration::ZERO, Duration::from_mins(10));
    })
    .await
}

#[tokio::test]
async fn a_stale_answer_is_marked_and_replaced() {
    let (gateway, simulator) = stale_at_once().await;
    told(&gateway, reading(None, None)).await;
    let (_, status) = told(&gateway, reading(None, None)).await;
    assert!(ttl(&status) < 0, "{status}");
    until(|| simulator.stats().calls == 2 && gateway.listings.walks() == 0).await;
    let messages = gateway.stream(StreamInstanceInformationRequest::default()).await.unwrap();
    assert!(messages[0].stale && !messages[2].stale, "its last page was fetched for this stream");
    let request =
        StreamInstanceInformationRequest { read_options: Some(read_options(Some(0), None)), ..Default::default() };
    assert!(gateway.stream(request).await.unwrap().iter().all(|message| !message.stale));
}

#[tokio::test]
async fn stale_data_stands_in_for_an_error_only_where_it_is_allowed() {
    let (gateway, simulator) = stale_at_once().await;
    told(&gateway, reading(None, None)).await;
    simulator.set_faults(failing(FailureKind::Throttling));
    assert!(ttl(&told(&gateway, reading(Some(0), Some(600))).await.1) < 0);
    let status = gateway.describe(reading(Some(0), Some(0))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
}

#[tokio::test]
async fn a_walk_stays_on_its_own_whatever_its_read_options() {
    let (gateway, simulator) = simulated(120).await;
    let first = gateway.describe(reading(None, None)).await.unwrap();
    let calls = simulator.stats().calls;
    let request = DescribeInstanceInformationRequest { next_token: first.next_token, ..reading(Some(0), None) };
    assert!(ttl(&told(&gateway, request).await.1) > 0);
    assert_eq!(simulator.stats().calls, calls);
}
