//! The server around the RPCs: health, reflection, request IDs, drain.

use std::time::Duration;

use futures_util::stream;
use prost::Message as _;
use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, ListTargetsRequest, target_service_client::TargetServiceClient},
    service::{SERVICE_NAME, TARGET_SERVICE_NAME},
    simulator::FailureKind,
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::support::{Gateway, failing, simulated, simulated_with, within};

async fn health(gateway: &Gateway) -> HealthClient<Channel> {
    HealthClient::new(gateway.channel().await)
}

#[tokio::test]
async fn health_is_told_for_the_server_and_the_service() {
    let (gateway, _simulator) = simulated(1).await;
    for service in ["", SERVICE_NAME, TARGET_SERVICE_NAME] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = within(health(&gateway).await.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let unknown = HealthCheckRequest { service: "nobody".to_owned() };
    assert_eq!(within(health(&gateway).await.check(unknown)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_watch_of_a_service_that_is_not_known_stays_open() {
    let (gateway, _simulator) = simulated(1).await;
    let request = HealthCheckRequest { service: "nobody".to_owned() };
    let mut watch = within(health(&gateway).await.watch(request)).await.unwrap().into_inner();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let more = tokio::time::timeout(Duration::from_millis(50), watch.message()).await;
    assert!(more.is_err(), "it neither ends nor says more: {more:?}");
    gateway.stop();
    assert_eq!(within(watch.message()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn reflection_answers_old_clients_and_new_ones_alike() {
    use tonic_reflection::pb::{v1, v1alpha};
    let (gateway, _simulator) = simulated(1).await;
    let channel = gateway.channel().await;
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
async fn reflection_goes_on_behind_what_it_does_not_know() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest as Ask, server_reflection_response::MessageResponse as Told,
    };
    let (gateway, _simulator) = simulated(1).await;
    let ask = |message_request| ServerReflectionRequest { host: "any".to_owned(), message_request };
    let symbol = |name: &str| Some(Ask::FileContainingSymbol(name.to_owned()));
    let file = |name: &str| Some(Ask::FileByFilename(name.to_owned()));
    let asked = [
        (symbol("ssm_gateway.v1.Nobody"), Err(Code::NotFound)),
        (None, Err(Code::InvalidArgument)),
        (symbol("ssm_gateway.v1.TARGET_STATE_READY"), Ok("ssm_gateway/v1/target_service.proto")),
        (file("status.proto"), Err(Code::NotFound)),
        (file("google/rpc/status.proto"), Ok("google/rpc/status.proto")),
        (symbol("google.rpc.ErrorInfo"), Ok("google/rpc/error_details.proto")),
        (symbol("grpc.health.v1.Health"), Ok("grpc/health/v1/health.proto")),
    ];
    let mut client = ServerReflectionClient::new(gateway.channel().await);
    let requests: Vec<_> = asked.iter().map(|(request, _)| ask(request.clone())).collect();
    let mut answers = within(client.server_reflection_info(stream::iter(requests))).await.unwrap().into_inner();
    for (request, expected) in asked {
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!((&*answer.valid_host, answer.original_request), ("any", Some(ask(request.clone()))));
        let told = match answer.message_response.unwrap() {
            Told::ErrorResponse(error) => Err(Code::from_i32(error.error_code)),
            Told::FileDescriptorResponse(files) => {
                let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap();
                Ok(file.name().to_owned())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(told.as_deref(), expected.as_ref().map(|name| *name), "{request:?}");
    }
    assert!(within(answers.message()).await.unwrap().is_none());
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
    let channel = gateway.channel().await;
    let mut grpc = tonic::client::Grpc::new(channel);
    let large = || DescribeInstanceInformationRequest { target: "x".repeat(2 << 20), ..Default::default() };
    for (path, reason) in [
        ("/ssm_gateway.v1.InstanceInformationService/StopEverything", "UNIMPLEMENTED"),
        ("/ssm_gateway.v1.InstanceInformationService/x/DescribeInstanceInformation", "UNIMPLEMENTED"),
        ("/ssm_gateway.v1.Nobody/Nothing", "UNIMPLEMENTED"),
        ("/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation", "REQUEST_TOO_LARGE"),
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
    let channel = gateway.channel().await;
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
async fn requests_may_be_compressed_to_every_service_and_answers_are_not_however_they_are_asked_for() {
    use tonic::codec::CompressionEncoding::{Gzip, Zstd};
    let (gateway, _simulator) = simulated(60).await;
    for encoding in [Gzip, Zstd] {
        let client = gateway.client.clone().send_compressed(encoding).accept_compressed(Gzip).accept_compressed(Zstd);
        let request = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
        let answer = within(client.clone().describe_instance_information(request)).await.unwrap();
        assert!(!answer.metadata().contains_key("grpc-encoding"), "compressing costs more than all else");
        assert_eq!(answer.into_inner().instance_information_list.len(), 50);
        let targets = TargetServiceClient::new(gateway.channel().await);
        let mut targets = targets.send_compressed(encoding).accept_compressed(encoding);
        let answer = within(targets.list_targets(ListTargetsRequest {})).await.unwrap();
        assert!(!answer.metadata().contains_key("grpc-encoding"));
        let mut health = health(&gateway).await.send_compressed(encoding);
        assert!(within(health.check(HealthCheckRequest::default())).await.is_ok());
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_to_be_tried_again_whatever_the_service() {
    let (gateway, _simulator) = simulated_with(1, |config| config.service.max_request_size = 2048).await;
    let large = DescribeInstanceInformationRequest { target: "x".repeat(4096), ..Default::default() };
    let by_us = gateway.describe(large).await.unwrap_err();
    // Whoever asks about health proves nothing, so that these are bounded by themselves.
    let by_tonic = HealthCheckRequest { service: "x".repeat(1100) };
    let by_tonic = within(health(&gateway).await.check(by_tonic)).await.unwrap_err();
    for status in [by_us, by_tonic] {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_error_info().unwrap().reason, "REQUEST_TOO_LARGE");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    }
}
