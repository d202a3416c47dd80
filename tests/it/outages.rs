//! The ways in which AWS is not there, through targets: the right status in bounded time, stale data where it is allowed,
//! and recovery without a restart.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use prometheus::Histogram;
use ssm_gateway::{
    config::{Config, Target},
    proto::{DescribeInstanceInformationRequest, ReadOptions},
    simulator::{self, Failure, FailureKind},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Gateway, failing_as, simulated, simulated_with, simulator_of, until, within};

/// How long an attempt may take where none will succeed.
const HASTE: Duration = Duration::from_millis(500);

/// What a server does with each connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Takes it, and never says a word.
    HalfOpen,
    /// Answers with half of what it promised.
    Cut,
    /// Answers a byte at a time, for ever.
    Drip,
    /// Answers with more than any page has.
    Flood,
}

/// A server that is no SSM.
async fn server(manner: Manner) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, manner));
        }
    });
    (addr, serving)
}

async fn serve(mut stream: TcpStream, manner: Manner) -> Option<()> {
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut request = [0; 4096];
    let _asked = stream.read(&mut request).await.ok()?;
    match manner {
        Manner::HalfOpen => std::future::pending().await,
        Manner::Cut => stream.write_all((head(1000) + "{\"InstanceInformationList\":[").as_bytes()).await.ok()?,
        Manner::Drip => {
            stream.write_all(head(1 << 20).as_bytes()).await.ok()?;
            loop {
                stream.write_all(b" ").await.ok()?;
                time::sleep(Duration::from_millis(20)).await;
            }
        }
        Manner::Flood => {
            let nodes = format!("{{\"InstanceId\":\"i-1\",\"Name\":\"{}\"}},", "x".repeat(1000)).repeat(20_000);
            let body = format!("{{\"InstanceInformationList\":[{}]}}", nodes.trim_end_matches(','));
            stream.write_all((head(body.len()) + &body).as_bytes()).await.ok()?;
        }
    }
    Some(())
}

/// A gateway whose target `aws` is at this endpoint, and has this long to answer.
async fn gateway_at(endpoint: &str, attempt_timeout: Duration) -> Gateway {
    Gateway::at(endpoint, |config: &mut Config| {
        config.upstream.connect_timeout = Duration::from_millis(500);
        config.upstream.attempt_timeout = attempt_timeout;
        config.upstream.fetch_timeout = attempt_timeout * 4;
        config.listing.hold_off = Duration::from_millis(10);
        config.listing.max_hold_off = Duration::from_millis(10);
        config.targets.insert("aws".into(), Target { endpoint_url: Some(endpoint.to_owned()), ..Target::default() });
    })
    .await
}

fn now() -> DescribeInstanceInformationRequest {
    let read_options = Some(ReadOptions { max_age: Some(prost_types::Duration::default()), max_stale: None });
    DescribeInstanceInformationRequest { target: "aws".to_owned(), read_options, ..Default::default() }
}

/// An upstream that is not there is told as such, in time.
async fn is_unavailable(endpoint: &str) {
    let gateway = gateway_at(endpoint, HASTE).await;
    let started = Instant::now();
    let status = gateway.describe(now()).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason), (Code::Unavailable, "TARGET_UNAVAILABLE"), "{endpoint}: {status:?}");
    assert_eq!(info.metadata["target"], "aws");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert!(started.elapsed() < Duration::from_secs(10), "{endpoint}: {:?}", started.elapsed());
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    is_unavailable("http://127.0.0.1:1").await;
}

#[tokio::test]
async fn a_name_that_is_not_known_is_unavailable() {
    is_unavailable("http://ssm.invalid").await;
}

#[tokio::test]
async fn a_server_without_tls_where_it_should_have_it_is_unavailable() {
    let (addr, _serving) = server(Manner::Cut).await;
    is_unavailable(&format!("https://{addr}")).await;
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_unavailable() {
    let (addr, _serving) = server(Manner::HalfOpen).await;
    is_unavailable(&format!("http://{addr}")).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_is_unavailable() {
    let (addr, _serving) = server(Manner::Cut).await;
    is_unavailable(&format!("http://{addr}")).await;
}

#[tokio::test]
async fn an_answer_that_drips_is_unavailable() {
    let (addr, _serving) = server(Manner::Drip).await;
    is_unavailable(&format!("http://{addr}")).await;
}

#[tokio::test]
async fn an_answer_larger_than_any_page_is_no_answer() {
    let (addr, _serving) = server(Manner::Flood).await;
    let gateway = gateway_at(&format!("http://{addr}"), Duration::from_secs(10)).await;
    let status = gateway.describe(now()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "UPSTREAM_PROTOCOL");
    assert!(gateway.listings.bytes() < 1 << 20, "and is not kept");
}

/// A walk by unary calls of 50, each tried again as its error advises.
async fn patient(gateway: &Gateway) -> usize {
    let mut request = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
    let mut nodes = 0;
    loop {
        match gateway.describe(request.clone()).await {
            Ok(answer) => {
                nodes += answer.instance_information_list.len();
                request.next_token = answer.next_token;
                if request.next_token.is_none() {
                    return nodes;
                }
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                let advised = status.get_details_retry_info().unwrap().retry_delay.unwrap();
                time::sleep(advised).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_there_are_served_while_aws_throttles_and_the_walk_goes_on_where_it_stopped() {
    let (gateway, simulator) = simulated(400).await;
    let page = |next_token: &Option<String>| DescribeInstanceInformationRequest {
        max_results: Some(50),
        next_token: next_token.clone(),
        ..Default::default()
    };
    let first = gateway.describe(page(&None)).await.unwrap();
    let second = gateway.describe(page(&first.next_token)).await.unwrap();
    simulator.set_faults(failing_as(Failure { calls: Some(1), ..Failure::always(FailureKind::Throttling) }));
    let status = gateway.describe(page(&second.next_token)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let of = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (max_age, max_stale) in [(None, None), (of(600), None), (None, of(600))] {
        let read_options = Some(ReadOptions { max_age, max_stale });
        let request = DescribeInstanceInformationRequest { read_options, ..page(&None) };
        let answer = gateway.describe(request).await.unwrap();
        assert_eq!(answer.instance_information_list, first.instance_information_list);
    }
    assert_eq!(simulator.stats().calls, 3);
    let walks = join_all((0..200).map(|_| patient(&gateway))).await;
    assert!(walks.iter().all(|nodes| *nodes == 400), "{walks:?}");
    assert_eq!(simulator.stats().calls, 8 + 1, "each page once, and one in vain");
}

/// How many fetches it costs that so many callers walk a fleet of eight pages while AWS throttles every other call: those
/// that are answered, and those that are not.
async fn cost_of_a_storm(callers: usize) -> (u64, u64) {
    let (gateway, simulator) = simulated_with(400, |config| {
        config.listing.ttl = Duration::from_mins(10);
        (config.listing.hold_off, config.listing.max_hold_off) = (Duration::from_millis(50), Duration::from_millis(50));
    })
    .await;
    simulator.set_faults(failing_as(Failure { probability: 0.5, ..Failure::always(FailureKind::Throttling) }));
    let (gateway, simulator) = (&gateway, &simulator);
    let walks = (0..callers as u64).map(|caller| async move {
        // They come while the walk goes on.
        until(|| simulator.stats().calls >= caller % 8).await;
        patient(gateway).await
    });
    assert!(join_all(walks).await.iter().all(|nodes| *nodes == 400));
    let fetches = gateway.listings.targets().next().unwrap().metrics().fetches();
    let [answered, throttled] =
        ["answered", "throttled"].map(|outcome| fetches.get(outcome).map_or(0, Histogram::get_sample_count));
    assert_eq!(answered + throttled, simulator.stats().calls);
    (answered, throttled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttle_storm_costs_as_many_calls_for_three_hundred_callers_as_for_one() {
    for callers in [1, 300] {
        let (answered, throttled) = cost_of_a_storm(callers).await;
        assert_eq!(answered, 8, "each page once, for {callers} callers");
        // As often as a coin falls badly before it has fallen well eight times.
        assert!(throttled < 80, "{throttled} for {callers} callers");
    }
}

#[tokio::test]
async fn stale_data_bridges_an_outage_and_the_target_is_back_as_soon_as_aws_is() {
    let simulator = simulator_of(7).await;
    let addr = simulator.addr();
    let gateway = gateway_at(&format!("http://{addr}"), HASTE).await;
    gateway.describe(now()).await.unwrap();
    drop(simulator);
    let bridged = ReadOptions { max_stale: Some(Duration::from_mins(10).try_into().unwrap()), ..Default::default() };
    let request = DescribeInstanceInformationRequest { read_options: Some(bridged), ..now() };
    within(async { while gateway.describe(now()).await.is_ok() {} }).await;
    let mut client = gateway.client.clone();
    let age = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let request = DescribeInstanceInformationRequest {
        read_options: request.read_options.map(|options| ReadOptions { max_age: age, ..options }),
        ..request
    };
    let answer = within(client.describe_instance_information(request)).await.unwrap();
    assert!(answer.metadata().get("cache-status").unwrap().to_str().unwrap().contains("ttl=-"), "{answer:?}");
    assert_eq!(answer.into_inner().instance_information_list.len(), 7);
    let _simulator = simulator::Config { listen: addr, nodes: 8, ..Default::default() }.start().await.unwrap();
    within(async {
        while gateway.describe(now()).await.map(|answer| answer.instance_information_list.len()).unwrap_or_default()
            != 8
        {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
