//! The server around the RPCs: health, reflection, request IDs, drain.

use std::time::{Duration, Instant};

use futures_util::stream;
use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    service::SERVICE_NAME,
    simulator::{FailureKind, Faults},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::support::{Gateway, failing, simulated, simulated_with, within};

async fn health(gateway: &Gateway) -> HealthClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", gateway.addr)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn health_is_told_for_the_server_and_the_service() {
    let (gateway, _simulator) = simulated(1).await;
    for service in ["", SERVICE_NAME] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = within(health(&gateway).await.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let unknown = HealthCheckRequest { service: "nobody".to_owned() };
    assert_eq!(within(health(&gateway).await.check(unknown)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_answers_old_clients_and_new_ones_alike() {
    use tonic_reflection::pb::{v1, v1alpha};
    let (gateway, _simulator) = simulated(1).await;
    let channel = Channel::from_shared(format!("http://{}", gateway.addr)).unwrap().connect().await.unwrap();
    // The contract's own file, and the one that describes the details of errors.
    for symbol in [SERVICE_NAME, "google.rpc.ErrorInfo"] {
        let ask = v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol.to_owned());
        let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let answers = within(client.server_reflection_info(stream::iter([request]))).await.unwrap();
        let answer = within(answers.into_inner().message()).await.unwrap().unwrap().message_response.unwrap();
        let v1::server_reflection_response::MessageResponse::FileDescriptorResponse(new) = answer else {
            panic!("{symbol} is not described: {answer:?}")
        };
        let ask = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(symbol.to_owned());
        let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let answers = within(client.server_reflection_info(stream::iter([request]))).await.unwrap();
        let answer = within(answers.into_inner().message()).await.unwrap().unwrap().message_response.unwrap();
        let v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(old) = answer else {
            panic!("{symbol} is not described: {answer:?}")
        };
        assert_eq!(new.file_descriptor_proto, old.file_descriptor_proto);
    }
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_the_callers_own_is_kept() {
    let (gateway, simulator) = simulated(1).await;
    let call = async |id: Option<&str>| {
        let mut request = tonic::Request::new(DescribeInstanceInformationRequest::default());
        if let Some(id) = id {
            request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        }
        let metadata = match gateway.client.clone().describe_instance_information(request).await {
            Ok(answer) => answer.metadata().clone(),
            Err(status) => status.metadata().clone(),
        };
        metadata.get("x-request-id").unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(call(Some("mine-7")).await, "mine-7");
    assert_eq!(call(None).await.len(), 16);
    simulator.set_faults(failing(FailureKind::Throttling));
    assert_eq!(call(Some("mine-8")).await, "mine-8", "errors have it too");
}

#[tokio::test]
async fn an_error_before_any_handler_has_its_error_info_too() {
    use ssm_gateway::proto::DescribeInstanceInformationResponse;
    use tonic::codegen::http::uri::PathAndQuery;
    let (gateway, _simulator) = simulated(1).await;
    let channel = Channel::from_shared(format!("http://{}", gateway.addr)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    let large = || DescribeInstanceInformationRequest { target: "x".repeat(2 << 20), ..Default::default() };
    for (path, reason) in [
        ("/ssm_gateway.v1.InstanceInformationService/StopEverything", "UNIMPLEMENTED"),
        ("/ssm_gateway.v1.InstanceInformationService/x/DescribeInstanceInformation", "UNIMPLEMENTED"),
        ("/ssm_gateway.v1.Nobody/Nothing", "UNIMPLEMENTED"),
        ("/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation", "OUT_OF_RANGE"),
    ] {
        let codec =
            tonic_prost::ProstCodec::<DescribeInstanceInformationRequest, DescribeInstanceInformationResponse>::default(
            );
        let path = PathAndQuery::from_static(path);
        within(grpc.ready()).await.unwrap();
        let status = within(grpc.unary(tonic::Request::new(large()), path, codec)).await.unwrap_err();
        assert_eq!(status.get_details_error_info().expect("an ErrorInfo").reason, reason, "{status:?}");
        assert!(!status.message().is_empty());
    }
}

#[tokio::test]
async fn a_request_that_is_no_message_is_an_invalid_argument() {
    use tonic::codegen::http::uri::PathAndQuery;
    let (gateway, _simulator) = simulated(1).await;
    let channel = Channel::from_shared(format!("http://{}", gateway.addr)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    within(grpc.ready()).await.unwrap();
    let path = PathAndQuery::from_static("/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation");
    // A Timestamp's varint in field 1, where a filter is expected.
    let wrong = tonic::Request::new(prost_types::Timestamp { seconds: 7, nanos: 0 });
    let codec = tonic_prost::ProstCodec::<prost_types::Timestamp, prost_types::Timestamp>::default();
    let status = within(grpc.unary(wrong, path, codec)).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason), (Code::InvalidArgument, "MALFORMED_REQUEST"));
}

#[tokio::test]
async fn a_drain_lets_calls_in_flight_finish_and_takes_no_more() {
    let (mut gateway, simulator) = simulated(120).await;
    simulator.set_faults(Faults { latency: Duration::from_millis(100), ..Faults::default() });
    let mut client = gateway.client.clone();
    let mut pages = within(client.stream_instance_information(StreamInstanceInformationRequest::default()))
        .await
        .unwrap()
        .into_inner();
    let mut watch = health(&gateway).await;
    let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
    let mut watch = within(watch.watch(request)).await.unwrap().into_inner();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    gateway.stop();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(watch);
    let mut nodes = 0;
    while let Some(page) = within(pages.message()).await.unwrap() {
        nodes += page.instance_information_list.len();
    }
    assert_eq!(nodes, 120);
    drop((pages, client));
    let addr = gateway.addr;
    within(gateway.stopped()).await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_stuck_peer_does_not_hold_the_drain_beyond_its_time() {
    let (mut gateway, simulator) =
        simulated_with(5, |config| config.edge.drain_timeout = Duration::from_millis(300)).await;
    simulator.set_faults(failing(FailureKind::Hang));
    let mut stuck = TcpStream::connect(gateway.addr).await.unwrap();
    let mut client = gateway.client.clone();
    let call = tokio::spawn(async move {
        client.describe_instance_information(DescribeInstanceInformationRequest::default()).await
    });
    while simulator.stats().calls == 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    gateway.stop();
    gateway.stopped().await;
    assert!((300..10_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert!(within(call).await.unwrap().is_err());
    let mut rest = Vec::new();
    let _closed = within(stuck.read_to_end(&mut rest)).await;
}
