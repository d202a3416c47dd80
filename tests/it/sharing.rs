//! One walk upstream, any number of callers, through the running gateway. The long forms run in release, by
//! `cargo test --release -- --ignored`.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use ssm_gateway::{
    proto::{
        DescribeInstanceInformationRequest, InstanceInformation, InstanceInformationStringFilter, ReadOptions,
        StreamInstanceInformationRequest, StreamInstanceInformationResponse,
    },
    read::Outcome,
    simulator::{FailureKind, Faults},
};
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use crate::support::{Client, Gateway, failing, fetches, filter, filtered, simulated, simulated_with, until, within};

/// How many callers there are at once.
const CALLERS: usize = 1000;

fn ids(nodes: &[InstanceInformation]) -> Vec<String> {
    nodes.iter().map(|node| node.instance_id().to_owned()).collect()
}

/// All IDs, by unary calls or by a stream, on a connection that a dozen callers share.
async fn walked(client: &mut Client, filters: Vec<InstanceInformationStringFilter>, by_stream: bool) -> Vec<String> {
    let mut all = Vec::new();
    if by_stream {
        let request = StreamInstanceInformationRequest { filters, ..Default::default() };
        let mut pages = within(client.stream_instance_information(request)).await.unwrap().into_inner();
        while let Some(page) = within(pages.message()).await.unwrap() {
            all.extend(ids(&page.instance_information_list));
        }
        return all;
    }
    let mut request = DescribeInstanceInformationRequest { max_results: Some(50), ..filtered(filters) };
    loop {
        let page = within(client.describe_instance_information(request.clone())).await.unwrap().into_inner();
        all.extend(ids(&page.instance_information_list));
        match page.next_token {
            None => return all,
            token => request.next_token = token,
        }
    }
}

/// All callers at once, half of them by streams, each with the filters that `filters` gives it.
async fn storm(nodes: usize, filters: impl Fn(usize) -> Vec<InstanceInformationStringFilter>) {
    let (gateway, simulator) = simulated(nodes).await;
    let clients = join_all((0..16).map(|_| Client::connect(format!("http://{}", gateway.addr)))).await;
    let clients: Vec<Client> = clients.into_iter().map(Result::unwrap).collect();
    let callers = (0..CALLERS).map(|caller| {
        let (mut client, filters) = (clients[caller % clients.len()].clone(), filters(caller));
        tokio::spawn(async move { walked(&mut client, filters, caller % 2 == 0).await })
    });
    let seen: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert!(!seen[0].is_empty() && seen.iter().all(|ids| *ids == seen[0]), "all see the same in the same order");
    assert_eq!(seen[0].iter().collect::<HashSet<_>>().len(), seen[0].len());
    let stats = simulator.stats();
    assert_eq!(stats.calls, seen[0].len().div_ceil(50) as u64);
    assert_eq!(stats.last_request["MaxResults"], 50);
}

/// One of a hundred orderings of the same filters.
fn reordered(caller: usize) -> Vec<InstanceInformationStringFilter> {
    let rotated = |mut values: [&'static str; 5], by: usize| {
        values.rotate_left(by % 5);
        values
    };
    let status = rotated(["Online", "ConnectionLost", "Inactive", "a", "b"], caller);
    let platform = rotated(["Linux", "Windows", "MacOS", "c", "d"], caller / 5);
    let mut filters = vec![filter("PingStatus", &status), filter("PlatformTypes", &platform)];
    if caller % 50 < 25 {
        filters.reverse();
    }
    if caller % 100 < 50 {
        filters.iter_mut().map(|filter| &mut filter.values).for_each(|values| values.reverse());
    }
    filters
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cold_callers_of_one_query_cost_one_walk() {
    storm(137, |_| Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_orderings_of_the_same_filters_cost_one_walk() {
    storm(137, reordered).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: in release"]
async fn long_a_thousand_cold_callers_cost_one_walk_of_a_large_fleet() {
    storm(1237, |_| Vec::new()).await;
    storm(1237, reordered).await;
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_of_its_fetch_takes_nothing_along() {
    let (gateway, simulator) = simulated(20).await;
    simulator.set_faults(Faults { latency: Duration::from_millis(300), ..Faults::default() });
    let call = || {
        let mut client = gateway.client.clone();
        tokio::spawn(async move {
            client.describe_instance_information(DescribeInstanceInformationRequest::default()).await
        })
    };
    let leaving = call();
    until(|| simulator.stats().calls == 1).await;
    let staying = call();
    leaving.abort();
    assert_eq!(within(staying).await.unwrap().unwrap().into_inner().instance_information_list.len(), 10);
    assert_eq!(simulator.stats().calls, 1);
}

async fn open(client: &mut Client) -> Streaming<StreamInstanceInformationResponse> {
    within(client.stream_instance_information(StreamInstanceInformationRequest::default())).await.unwrap().into_inner()
}

/// A connection that takes little before its reader reads.
async fn narrow(gateway: &Gateway) -> Client {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.addr)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 16);
    Client::new(within(endpoint.connect()).await.unwrap()).max_decoding_message_size(usize::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_stops_the_walk_and_goes_on_when_it_is() {
    let (gateway, simulator) = simulated(10_000).await;
    let mut pages = open(&mut narrow(&gateway).await).await;
    let first = within(pages.message()).await.unwrap().unwrap();
    until(|| gateway.listings.walks() == 0).await;
    assert!(simulator.stats().calls < 100, "{}", simulator.stats().calls);
    let mut seen = ids(&first.instance_information_list);
    while let Some(page) = within(pages.message()).await.unwrap() {
        seen.extend(ids(&page.instance_information_list));
    }
    assert_eq!((seen.len(), simulator.stats().calls), (10_000, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_costs_nothing_from_the_moment_its_caller_leaves() {
    let (gateway, simulator) = simulated(10_000).await;
    // Wide enough for all of it: only because its caller leaves does the walk end early.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.addr)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(1 << 25).initial_connection_window_size(1 << 25);
    let mut client = Client::new(within(endpoint.connect()).await.unwrap());
    simulator.set_faults(Faults { latency: Duration::from_millis(20), ..Faults::default() });
    let mut pages = open(&mut client).await;
    within(pages.message()).await.unwrap().unwrap();
    assert_eq!(gateway.listings.walks(), 1);
    drop(pages);
    until(|| gateway.listings.walks() == 0).await;
    assert!(simulator.stats().calls < 100, "{}", simulator.stats().calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_given_up_is_told_when_to_go_on_and_its_token_leads_on() {
    let (gateway, _simulator) = simulated_with(120, |config| config.listing.stall_timeout = Duration::ZERO).await;
    let mut pages = open(&mut gateway.client.clone()).await;
    let first = within(pages.message()).await.unwrap().unwrap();
    let status = within(pages.message()).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.domain, &*info.reason), (Code::Unavailable, "ssm-gateway", "OVERLOADED"));
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let request = StreamInstanceInformationRequest { resume_tokens: vec![first.resume_token], ..Default::default() };
    let rest = within(gateway.client.clone().stream_instance_information(request)).await.unwrap();
    let second = within(rest.into_inner().message()).await.unwrap().unwrap();
    assert!(!second.instance_information_list.is_empty());
    assert!(
        ids(&second.instance_information_list).iter().all(|id| !ids(&first.instance_information_list).contains(id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_slow_and_ten_fast_readers_share_one_walk() {
    let (gateway, simulator) = simulated(2_000).await;
    let reader = async |is_slow: bool| {
        let mut pages = open(&mut narrow(&gateway).await).await;
        let mut seen = Vec::new();
        while let Some(page) = within(pages.message()).await.unwrap() {
            seen.extend(ids(&page.instance_information_list));
            if is_slow {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        seen
    };
    let seen = join_all((0..20).map(|index| reader(index % 2 == 0))).await;
    assert!(seen[0].len() == 2_000 && seen.iter().all(|ids| *ids == seen[0]));
    assert_eq!(simulator.stats().calls, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_larger_than_a_listings_cap_streams_whole_to_several_readers_within_the_bound() {
    const BOUND: usize = 2 << 20;
    let (gateway, simulator) = simulated_with(5_000, |config| {
        (config.listing.max_bytes, config.listing.max_listing_bytes) = (BOUND, Some(BOUND / 8));
    })
    .await;
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push((open(&mut narrow(&gateway).await).await, HashSet::new()));
    }
    // Each begins three pages after the one before it.
    for round in 0..109 {
        for (_, (pages, seen)) in (0..).zip(&mut readers).filter(|(reader, _)| (0..100).contains(&(round - 3 * reader)))
        {
            let page = within(pages.message()).await.unwrap().unwrap();
            seen.extend(ids(&page.instance_information_list));
        }
        assert!(gateway.listings.bytes() <= BOUND);
    }
    assert!(readers.iter().all(|(_, seen)| seen.len() == 5_000));
    assert_eq!((simulator.stats().calls, gateway.listings.evictions()), (100, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_adds_up() {
    let (gateway, simulator) = simulated(120).await;
    let calls = async |times: usize| {
        join_all((0..times).map(|_| gateway.describe(DescribeInstanceInformationRequest::default()))).await
    };
    calls(10).await;
    calls(10).await;
    simulator.set_faults(failing(FailureKind::Throttling));
    let other = || filtered(vec![filter("PingStatus", &["Online"])]);
    join_all((0..10).map(|_| gateway.describe(other()))).await;
    let readers = gateway.listings.readers();
    let of = |outcome| readers.of(outcome);
    assert_eq!((of(Outcome::Miss), of(Outcome::Hit) + of(Outcome::Coalesced)), (1, 19));
    assert_eq!(of(Outcome::Refused) + of(Outcome::Failed), 10);
    assert_eq!((of(Outcome::Stale), gateway.listings.evictions()), (0, 0));
    assert_eq!(fetches(&gateway.listings), simulator.stats().calls);
    assert!(gateway.listings.bytes() > 10_000);
}

/// Five hundred calls a second for ten seconds against an upstream that throttles.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ten seconds"]
async fn long_a_throttled_upstream_is_left_alone_and_callers_are_told_at_once() {
    let (gateway, simulator) = simulated(20).await;
    let of = |time: Duration| Some(time.try_into().unwrap());
    let any_age = ReadOptions { max_age: of(Duration::from_nanos(1)), max_stale: of(Duration::from_hours(1)) };
    let stale = DescribeInstanceInformationRequest {
        read_options: Some(any_age),
        ..filtered(vec![filter("PlatformTypes", &["Linux"])])
    };
    gateway.describe(stale.clone()).await.unwrap();
    simulator.set_faults(failing(FailureKind::Throttling));
    let calls = simulator.stats().calls;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let mut answers = Vec::new();
    for call in 0..5_000 {
        ticks.tick().await;
        let (mut client, request) =
            (gateway.client.clone(), if call % 2 == 0 { stale.clone() } else { filtered(Vec::new()) });
        answers.push(tokio::spawn(async move {
            let started = Instant::now();
            (client.describe_instance_information(request).await, started.elapsed())
        }));
    }
    for (call, answer) in answers.into_iter().enumerate() {
        let (answer, took) = answer.await.unwrap();
        assert!(took < Duration::from_secs(1), "at once, not after a pile-up: {took:?}");
        match answer {
            Ok(answer) => {
                let status = answer.metadata().get("cache-status").unwrap().to_str().unwrap();
                assert!(call % 2 == 0 && status.starts_with("ssm-gateway; hit; ttl=-"), "{status}");
            }
            Err(status) => {
                assert_eq!((status.code(), call % 2), (Code::ResourceExhausted, 1));
                assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
            }
        }
    }
    // At 0 s, and after hold-offs of 1, 2 and 4 s, once a query.
    assert!((3..=8).contains(&(simulator.stats().calls - calls)), "{}", simulator.stats().calls - calls);
}
