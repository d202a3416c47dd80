//! The status mapping, every row that can happen today, through the running gateway.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use ssm_gateway::{
    proto::{
        DescribeInstanceInformationRequest, StreamInstanceInformationRequest,
        instance_information_service_client::InstanceInformationServiceClient,
    },
    simulator::{Failure, FailureKind, Faults},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    Gateway, aws_error, failing, failing_as, filter, filtered, forget, forgetful, simulated, simulated_with,
};

/// What every error must carry.
struct Told {
    code: Code,
    reason: String,
    domain: String,
    message: String,
    status: Status,
}

async fn told(gateway: &Gateway) -> Told {
    let status = gateway.describe(filtered(vec![filter("PingStatus", &["Online"])])).await.unwrap_err();
    let info = status.get_details_error_info().expect("every error has an ErrorInfo");
    assert_eq!(info.metadata["target"], "default");
    let (code, message) = (status.code(), status.message().to_owned());
    Told { code, reason: info.reason, domain: info.domain, message, status }
}

#[tokio::test]
async fn faults_of_the_request_are_invalid_arguments() {
    let (gateway, simulator) = forgetful(5).await;
    for (code, reason) in [
        ("InvalidFilterKey", "INVALID_FILTER_KEY"),
        ("InvalidInstanceInformationFilterValue", "INVALID_INSTANCE_INFORMATION_FILTER_VALUE"),
        ("InvalidInstanceId", "INVALID_INSTANCE_ID"),
        ("ValidationException", "VALIDATION"),
    ] {
        simulator.set_faults(failing(aws_error(400, code, Some("AWS's words."))));
        let told = told(&gateway).await;
        assert_eq!((told.code, &*told.reason, &*told.domain), (Code::InvalidArgument, reason, "ssm.amazonaws.com"));
        let expected =
            if code == "InvalidFilterKey" { "AWS refused the request: InvalidFilterKey" } else { "AWS's words." };
        assert_eq!(told.message, expected);
        let info = told.status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["aws_error_code"], code);
        assert!(!info.metadata["aws_request_id"].is_empty());
        assert_eq!(told.status.get_details_bad_request().unwrap().field_violations[0].field, "filters");
    }
}

#[tokio::test]
async fn throttling_is_resource_exhausted_with_advice_and_never_retried() {
    for (code, reason) in [
        ("ThrottlingException", "THROTTLING"),
        ("RequestLimitExceeded", "REQUEST_LIMIT_EXCEEDED"),
        ("TooManyRequestsException", "TOO_MANY_REQUESTS"),
        ("SlowDown", "SLOW_DOWN"),
    ] {
        let (gateway, simulator) = simulated(5).await;
        let retry_after = Some(Duration::from_millis(2500));
        let failure = Failure { retry_after, ..Failure::always(aws_error(400, code, Some("Rate exceeded"))) };
        simulator.set_faults(failing_as(failure));
        let told = told(&gateway).await;
        assert_eq!(simulator.stats().calls, 1);
        assert_eq!((told.code, &*told.reason, &*told.message), (Code::ResourceExhausted, reason, "Rate exceeded"));
        let delay = told.status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!((1500..=2500).contains(&delay.as_millis()), "{delay:?}");
        let pushback: u64 =
            told.status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
        assert!((1500..=3750).contains(&pushback), "{pushback}");
    }
    let (gateway, simulator) = simulated(5).await;
    simulator.set_faults(failing(aws_error(429, "OddException", None)));
    let odd = told(&gateway).await;
    assert_eq!((odd.code, &*odd.reason), (Code::ResourceExhausted, "ODD"), "an unknown code goes by the HTTP status");
    let delay = odd.status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((1..=1100).contains(&delay.as_millis()), "the hold-off, without AWS's advice: {delay:?}");
}

#[tokio::test]
async fn a_failure_of_aws_or_of_the_way_there_is_unavailable_after_two_retries() {
    let (patient, simulator) = forgetful(5).await;
    // Only where no answer ever comes may an attempt be cut short: elsewhere a busy machine would change the outcome.
    let hasty = Gateway::at(&simulator.url(), |config| {
        forget(config);
        config.upstream.attempt_timeout = Duration::from_secs(1);
    })
    .await;
    for (kind, reason, domain) in [
        (FailureKind::InternalError, "INTERNAL_SERVER_ERROR", "ssm.amazonaws.com"),
        (aws_error(503, "ServiceUnavailable", None), "SERVICE_UNAVAILABLE", "ssm.amazonaws.com"),
        (FailureKind::Html, "TARGET_UNAVAILABLE", "ssm-gateway"),
        (FailureKind::Reset, "TARGET_UNAVAILABLE", "ssm-gateway"),
        (FailureKind::Cut, "TARGET_UNAVAILABLE", "ssm-gateway"),
        (FailureKind::Hang, "TARGET_UNAVAILABLE", "ssm-gateway"),
    ] {
        let calls = simulator.stats().calls;
        simulator.set_faults(failing(kind.clone()));
        let told = told(if kind == FailureKind::Hang { &hasty } else { &patient }).await;
        assert_eq!((told.code, &*told.reason, &*told.domain), (Code::Unavailable, reason, domain), "{kind:?}");
        assert!(told.status.get_details_retry_info().is_some());
        assert_eq!(simulator.stats().calls, calls + 3, "{kind:?}");
    }
}

#[tokio::test]
async fn a_failure_that_passes_is_not_seen() {
    let (gateway, simulator) = forgetful(5).await;
    for kind in [FailureKind::InternalError, FailureKind::Html, FailureKind::Reset, FailureKind::Cut] {
        simulator.set_faults(failing_as(Failure { calls: Some(2), ..Failure::always(kind.clone()) }));
        let answer = gateway.describe(DescribeInstanceInformationRequest::default()).await;
        assert_eq!(answer.unwrap().instance_information_list.len(), 5, "{kind:?}");
    }
}

#[tokio::test]
async fn a_fetch_takes_no_longer_than_its_own_timeout() {
    let (gateway, simulator) = simulated_with(5, |config| {
        config.upstream.attempt_timeout = Duration::from_mins(1);
        config.upstream.fetch_timeout = Duration::from_secs(1);
    })
    .await;
    simulator.set_faults(failing(FailureKind::Hang));
    let told = told(&gateway).await;
    assert_eq!((told.code, &*told.reason), (Code::Unavailable, "TARGET_UNAVAILABLE"));
    assert_eq!(simulator.stats().calls, 1);
}

#[tokio::test]
async fn an_unreachable_endpoint_is_unavailable() {
    let gateway = Gateway::at("http://127.0.0.1:1", |_| {}).await;
    let told = told(&gateway).await;
    assert_eq!((told.code, &*told.reason), (Code::Unavailable, "TARGET_UNAVAILABLE"));
}

#[tokio::test]
async fn denied_access_names_the_target_and_neither_role_nor_account() {
    let (gateway, simulator) = forgetful(5).await;
    for kind in [FailureKind::AccessDenied, aws_error(403, "AccessDenied", Some("arn:aws:iam::123456789012:role/x"))] {
        simulator.set_faults(failing(kind));
        let told = told(&gateway).await;
        assert_eq!((told.code, &*told.reason), (Code::PermissionDenied, "AWS_ACCESS_DENIED"));
        assert_eq!(told.domain, "ssm-gateway");
        let everything = format!("{:?}", told.status);
        assert!(told.message.contains("default") && !everything.contains("123456789012"), "{everything}");
    }
}

#[tokio::test]
async fn credentials_of_the_gateway_are_never_the_callers_fault() {
    let (gateway, simulator) = forgetful(5).await;
    for kind in [
        FailureKind::ExpiredCredentials,
        aws_error(400, "UnrecognizedClientException", Some("The security token is invalid.")),
        aws_error(403, "InvalidSignatureException", None),
    ] {
        simulator.set_faults(failing(kind.clone()));
        let told = told(&gateway).await;
        let found = (told.code, &*told.reason, &*told.domain);
        assert_eq!(found, (Code::Unavailable, "AWS_CREDENTIALS", "ssm-gateway"), "{kind:?}");
    }
}

#[tokio::test]
async fn any_other_refusal_is_a_failed_precondition_cut_to_a_kilobyte() {
    let (gateway, simulator) = simulated(5).await;
    simulator.set_faults(failing(aws_error(400, "OptInRequired", Some(&"é".repeat(5000)))));
    let told = told(&gateway).await;
    assert_eq!((told.code, &*told.reason), (Code::FailedPrecondition, "OPT_IN_REQUIRED"));
    assert_eq!(told.message, "é".repeat(512));
}

#[tokio::test]
async fn a_success_that_is_not_the_operations_is_an_internal_error() {
    let (gateway, simulator) = forgetful(5).await;
    for kind in [FailureKind::HtmlOk, FailureKind::MalformedJson] {
        simulator.set_faults(failing(kind.clone()));
        let told = told(&gateway).await;
        assert_eq!((told.code, &*told.reason), (Code::Internal, "UPSTREAM_PROTOCOL"), "{kind:?}");
        assert_eq!(told.domain, "ssm-gateway");
    }
}

#[tokio::test]
async fn a_walk_that_would_never_end_is_an_internal_error() {
    let (gateway, simulator) = simulated(200).await;
    simulator.set_faults(Faults { repeat_token: true, ..Faults::default() });
    let status = gateway.stream(StreamInstanceInformationRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.get_details_error_info().unwrap().reason, "UPSTREAM_PROTOCOL");

    let (gateway, _simulator) = simulated_with(200, |config| config.listing.page_cap = 3).await;
    let status = gateway.stream(StreamInstanceInformationRequest::default()).await.unwrap_err();
    assert_eq!(status.message(), "the listing is longer than 3 pages of AWS, the gateway's page_cap");
    assert_eq!(status.get_details_error_info().unwrap().reason, "UPSTREAM_PROTOCOL");
}

#[tokio::test]
async fn a_token_that_aws_let_expire_aborts_the_walk() {
    let (gateway, simulator) = simulated(120).await;
    let request = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
    let next_token = gateway.describe(request.clone()).await.unwrap().next_token;
    simulator.set_faults(Faults { expire_tokens: true, ..Faults::default() });
    let status = gateway.describe(DescribeInstanceInformationRequest { next_token, ..request }).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason, &*info.domain), (Code::Aborted, "LISTING_EXPIRED", "ssm-gateway"));
    assert_eq!(info.metadata["aws_error_code"], "InvalidNextToken");
}

/// A client that leaves deadlines to the server; tonic's own gives up by itself.
pub(crate) fn patient(
    addr: SocketAddr,
) -> InstanceInformationServiceClient<HttpClient<HttpConnector, tonic::body::Body>> {
    let http = HttpClient::builder(TokioExecutor::new()).http2_only(true).build_http();
    InstanceInformationServiceClient::with_origin(http, format!("http://{addr}").parse().unwrap())
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_its_deadline() {
    let (gateway, simulator) = forgetful(5).await;
    for kind in [FailureKind::Hang, FailureKind::Html] {
        simulator.set_faults(Faults { latency: Duration::from_secs(5), ..failing(kind) });
        let mut request = tonic::Request::new(DescribeInstanceInformationRequest::default());
        request.metadata_mut().insert("grpc-timeout", "150m".parse().unwrap());
        let started = Instant::now();
        let status = patient(gateway.addr).describe_instance_information(request).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(4));
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), &*info.reason), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    }
}

#[tokio::test]
async fn an_upstream_that_answers_html_is_told_within_the_deadline() {
    let (gateway, simulator) = simulated(5).await;
    simulator.set_faults(failing(FailureKind::Html));
    let mut request = tonic::Request::new(DescribeInstanceInformationRequest::default());
    request.set_timeout(Duration::from_secs(10));
    let status = gateway.client.clone().describe_instance_information(request).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason), (Code::Unavailable, "TARGET_UNAVAILABLE"));
}
