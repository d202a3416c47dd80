//! How much callers may ask for, and how long.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use ssm_gateway::{
    config::Config,
    edge::{self, Address, CatchPanicLayer, Metrics, ObserveLayer, Stages},
    grpc::Failure,
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::FailureKind,
};
use tonic::{
    Code,
    codegen::http::{Request, Response},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;
use tower::{Layer as _, service_fn};

use crate::{
    proofs::{allow, token, with_token},
    support::{Client, Gateway, failing, simulated_with, until, within},
};

/// Two callers whose calls never end by themselves.
async fn limited(limit: impl FnOnce(&mut Config)) -> (Gateway, ssm_gateway::simulator::Simulator) {
    let (gateway, simulator) = simulated_with(5, |config| {
        config.auth.tokens = vec![token("greedy"), token("modest")];
        config.allow = vec![allow("*", &[], &[])];
        limit(config);
    })
    .await;
    simulator.set_faults(failing(FailureKind::Hang));
    (gateway, simulator)
}

/// Begins a call that goes on until the gateway is gone.
fn begin(gateway: &Gateway, who: &str) {
    let (mut client, request) = (gateway.client.clone(), as_caller(who));
    tokio::spawn(async move { client.describe_instance_information(request).await.map(drop) });
}

fn as_caller(who: &str) -> tonic::Request<DescribeInstanceInformationRequest> {
    with_token(DescribeInstanceInformationRequest::default(), &format!("{who}-secret"))
}

async fn refused(gateway: &Gateway, who: &str) -> (Code, String) {
    let status = within(gateway.client.clone().describe_instance_information(as_caller(who))).await.unwrap_err();
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    let pushback =
        status.metadata().get("grpc-retry-pushback-ms").map(|millis| millis.to_str().unwrap().parse::<u64>());
    if let Some(pushback) = pushback {
        assert!((wait.as_millis()..=wait.as_millis() * 2).contains(&u128::from(pushback.unwrap())));
    }
    (status.code(), status.get_details_error_info().unwrap().reason)
}

#[tokio::test]
async fn a_greedy_caller_is_told_its_quota_and_another_one_is_served() {
    let (gateway, simulator) = limited(|config| config.limits.max_calls_per_principal = 2).await;
    begin(&gateway, "greedy");
    begin(&gateway, "greedy");
    until(|| gateway.limits.calls() == 2).await;
    assert_eq!(refused(&gateway, "greedy").await, (Code::ResourceExhausted, "CALLER_QUOTA".to_owned()));
    begin(&gateway, "modest");
    until(|| gateway.limits.calls() == 3).await;
    simulator.set_faults(ssm_gateway::simulator::Faults::default());
}

#[tokio::test]
async fn a_caller_may_call_as_often_as_it_may_and_comes_back_when_it_is_told() {
    let rate = |config: &mut Config| {
        config.limits.calls_per_second = 10.try_into().ok();
        config.limits.burst = 2.try_into().ok();
    };
    let (gateway, simulator) = limited(rate).await;
    simulator.set_faults(ssm_gateway::simulator::Faults::default());
    let call = async |who: &str| within(gateway.client.clone().describe_instance_information(as_caller(who))).await;
    let refused = async {
        loop {
            if let Err(status) = call("greedy").await {
                return status;
            }
        }
    };
    let status = within(refused).await;
    assert_eq!(status.get_details_error_info().unwrap().reason, "CALLER_QUOTA");
    assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "token:greedy");
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait <= Duration::from_millis(100), "{wait:?}");
    assert!(call("modest").await.is_ok());
    tokio::time::sleep(wait).await;
    assert!(call("greedy").await.is_ok());
}

#[tokio::test]
async fn more_than_the_gateway_can_take_is_turned_away_at_once_and_health_is_still_told() {
    let (gateway, _simulator) = limited(|config| config.limits.max_calls = 2).await;
    begin(&gateway, "greedy");
    begin(&gateway, "modest");
    until(|| gateway.limits.calls() == 2).await;
    assert_eq!(refused(&gateway, "modest").await, (Code::Unavailable, "OVERLOADED".to_owned()));
    assert!(within(HealthClient::new(gateway.channel().await).check(HealthCheckRequest::default())).await.is_ok());
}

#[tokio::test]
async fn no_call_lasts_longer_than_the_gateways_own_limit() {
    let (gateway, simulator) =
        simulated_with(60, |config| config.limits.max_call_time = Duration::from_millis(400)).await;
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap();
    simulator.set_faults(failing(FailureKind::Hang));
    let request = StreamInstanceInformationRequest::default();
    let mut pages = within(gateway.client.clone().stream_instance_information(request)).await.unwrap().into_inner();
    assert!(within(pages.message()).await.unwrap().is_some());
    let status = within(pages.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "the gateway's own limit of 400ms passed"));
}

#[tokio::test]
async fn the_gateway_answers_a_call_in_which_it_panics_and_lives() {
    // No file can say so, since clocks end before: every call panics inside.
    let (gateway, _simulator) = simulated_with(1, |config| config.limits.max_call_time = Duration::MAX).await;
    for _ in 0..2 {
        let status = gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Internal, "the gateway failed; its log says where"));
        assert!(status.metadata().contains_key("x-request-id"));
    }
    assert_eq!(gateway.limits.calls(), 0, "it is not counted any more");
}

#[tokio::test]
async fn a_panic_is_one_callers_error_and_the_connection_lives() {
    let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
        let is_stream = request.uri().path().ends_with("StreamInstanceInformation");
        assert!(is_stream, "at once");
        let frames = stream::once(async { panic!("in the body") });
        let frames = frames.map(|never: Result<http_body::Frame<bytes::Bytes>, Failure>| never);
        Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
    });
    let config =
        edge::Config { listen: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), ..edge::Config::default() };
    let listener = config.bind().await.unwrap();
    let url = format!("http://{}", listener.addr());
    let metrics = Metrics::new().unwrap();
    let observe = ObserveLayer { metrics: metrics.clone(), slow_call: Duration::MAX, is_traced: false };
    let service = observe.layer(CatchPanicLayer.layer(service));
    tokio::spawn(listener.serve(service, Stages::default(), metrics));
    let mut client = within(Client::connect(url)).await.unwrap();
    for _ in 0..2 {
        let status = within(client.describe_instance_information(DescribeInstanceInformationRequest::default())).await;
        let status = status.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Internal, "the gateway failed; its log says where"));
        assert_eq!(status.get_details_error_info().unwrap().reason, "INTERNAL");
        let pages = within(client.stream_instance_information(StreamInstanceInformationRequest::default())).await;
        let status = within(pages.unwrap().into_inner().message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
}
