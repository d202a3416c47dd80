//! How the gateway stops.

use std::time::{Duration, Instant};

use ssm_gateway::{
    config::Config,
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    service::SERVICE_NAME,
    simulator::{self, FailureKind, Faults},
};
use tokio::net::TcpStream;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::{
    program::Program,
    proofs::Folder,
    raw::{GOAWAY, Raw, STREAM, call},
    support::{Gateway, failing, simulated_with, simulator_of, until, within},
};

async fn health(gateway: &Gateway) -> HealthClient<Channel> {
    HealthClient::new(gateway.channel().await)
}

#[tokio::test]
async fn a_drain_lets_calls_in_flight_finish_and_takes_no_more() {
    let longest = |config: &mut Config| config.edge.drain_timeout = Duration::from_hours(1);
    let (gateway, simulator) = simulated_with(120, longest).await;
    simulator.set_faults(Faults { latency: Duration::from_millis(100), ..Faults::default() });
    let mut client = gateway.client.clone();
    let call = client.stream_instance_information(StreamInstanceInformationRequest::default());
    let mut pages = within(call).await.unwrap().into_inner();
    let mut watch = health(&gateway).await;
    let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
    let mut watch = within(watch.watch(request)).await.unwrap().into_inner();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    gateway.stop();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let ended = within(watch.message()).await.unwrap_err();
    assert_eq!(ended.get_details_error_info().unwrap().reason, "DRAINING", "a watch holds no drain");
    let mut nodes = 0;
    while let Some(page) = within(pages.message()).await.unwrap() {
        nodes += page.instance_information_list.len();
    }
    assert_eq!(nodes, 120);
    let addr = gateway.addr;
    // The clients are still there, and idle: nothing is waited for.
    gateway.stopped().await;
    assert!(TcpStream::connect(addr).await.is_err());
    drop((watch, pages));
}

#[tokio::test]
async fn health_says_it_first_and_all_is_served_as_ever_while_others_look_elsewhere() {
    let (gateway, _simulator) = simulated_with(5, |config| config.edge.drain_delay = Duration::from_hours(1)).await;
    gateway.stop();
    let mut health = health(&gateway).await;
    let status = async |health: &mut HealthClient<Channel>| {
        within(health.check(HealthCheckRequest::default())).await.unwrap().into_inner().status()
    };
    while status(&mut health).await == ServingStatus::Serving {}
    assert!(gateway.describe(DescribeInstanceInformationRequest::default()).await.is_ok());
    assert!(TcpStream::connect(gateway.addr).await.is_ok());
    gateway.stop();
    gateway.stopped().await;
}

#[tokio::test]
async fn a_stream_that_is_left_is_ended_with_its_resume_token_in_hand_and_goes_on_elsewhere() {
    let simulator = simulator_of(160).await;
    let leaving = Gateway::at(&simulator.url(), |config| {
        config.edge.drain_timeout = Duration::from_millis(400);
        config.listing.read_ahead = 0;
    })
    .await;
    let staying = Gateway::at(&simulator.url(), |_| {}).await;
    let mut client = leaving.client.clone();
    let request = StreamInstanceInformationRequest { page_size: Some(60), ..Default::default() };
    simulator.set_faults(Faults { latency: Duration::from_millis(1), ..Faults::default() });
    let mut pages = within(client.stream_instance_information(request.clone())).await.unwrap().into_inner();
    let first = within(pages.message()).await.unwrap().unwrap();
    simulator.set_faults(failing(FailureKind::Hang));
    leaving.stop();
    let mut nodes = first.instance_information_list;
    let mut token = first.resume_token;
    let status = loop {
        match within(pages.message()).await {
            Ok(Some(page)) => {
                nodes.extend(page.instance_information_list);
                token = page.resume_token;
            }
            Ok(None) => panic!("it did not end by itself"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_error_info().unwrap().reason, "DRAINING");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    leaving.stopped().await;
    simulator.set_faults(Faults::default());
    let rest =
        staying.stream(StreamInstanceInformationRequest { resume_tokens: vec![token], ..request }).await.unwrap();
    nodes.extend(rest.into_iter().flat_map(|page| page.instance_information_list));
    let whole = staying.walk(DescribeInstanceInformationRequest::default()).await;
    assert!(nodes == whole, "nothing is lost, and nothing comes twice");
}

#[tokio::test]
async fn no_stuck_peer_holds_the_drain_beyond_its_time() {
    let (gateway, simulator) =
        simulated_with(5000, |config| config.edge.drain_timeout = Duration::from_millis(400)).await;
    // One that says nothing, one that stops in the middle of a frame, one that takes nothing of a stream, and one whose call
    // never ends by itself.
    let silent = Raw::silent(gateway.addr).await;
    let mut halting = Raw::greeting(gateway.addr, &[]).await;
    halting.send(&call(1, STREAM)[..20]).await.unwrap();
    let no_window = [0, 4, 0, 0, 0, 0];
    let mut stuck = Raw::greeting(gateway.addr, &no_window).await;
    stuck.send(&call(1, STREAM)).await.unwrap();
    until(|| simulator.stats().calls > 0).await;
    simulator.set_faults(failing(FailureKind::Hang));
    let waiting = tokio::spawn({
        let mut client = gateway.client.clone();
        let filters = vec![crate::support::filter("PingStatus", &["Online"])];
        let request = DescribeInstanceInformationRequest { filters, ..Default::default() };
        async move { client.describe_instance_information(request).await }
    });
    until(|| gateway.limits.calls() == 2).await;
    let (limits, started) = (gateway.limits.clone(), Instant::now());
    gateway.stop();
    gateway.stopped().await;
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!(within(waiting).await.unwrap().unwrap_err().get_details_error_info().unwrap().reason, "DRAINING");
    until(|| limits.calls() == 0).await;
    drop((silent, halting, stuck));
}

#[tokio::test]
async fn peers_are_told_to_go_away_before_they_are_cut_off() {
    let (gateway, simulator) = simulated_with(5, |config| config.edge.drain_timeout = Duration::from_millis(400)).await;
    simulator.set_faults(failing(FailureKind::Hang));
    let mut raw = Raw::greeting(gateway.addr, &[]).await;
    raw.send(&call(1, STREAM)).await.unwrap();
    until(|| simulator.stats().calls > 0).await;
    gateway.stop();
    assert!(raw.next_of(GOAWAY).await.is_some());
    raw.closed().await;
}

/// The program in front of a simulator that never answers, with a call that waits, and the longest of drains.
async fn waiting_program() -> (Program, simulator::Simulator, Raw) {
    let simulator = simulator::Config::default().start().await.unwrap();
    simulator.set_faults(failing(FailureKind::Hang));
    let config = "[edge]\ndrain_timeout = '1h'\n";
    let program = Program::in_front_of(&simulator, &Folder::new(), config, "127.0.0.1:0", "");
    let mut raw = Raw::greeting(program.addr, &[]).await;
    raw.send(&call(1, STREAM)).await.unwrap();
    until(|| simulator.stats().calls > 0).await;
    (program, simulator, raw)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_drain_at_once() {
    let (mut program, _simulator, mut raw) = waiting_program().await;
    program.signal("TERM");
    program.until("draining");
    assert!(raw.next_of(GOAWAY).await.is_some(), "the first one waits");
    program.signal("TERM");
    let log = within(tokio::task::spawn_blocking(|| program.stopped())).await.unwrap();
    assert!(log.contains("stopping at once"), "{log}");
}
