//! Answers of SSM's endpoint that are none, or only nearly.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, header};
use ssm_gateway::proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    aws::{Aws, answer, error, page, session, sts_error},
    http::metrics,
    support::{Gateway, forget},
};

async fn gateway(aws: &Aws) -> Gateway {
    Gateway::at(&aws.url(), forget).await
}

fn first() -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() }
}

fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().unwrap().reason)
}

#[tokio::test]
async fn an_answer_without_the_list_is_none_on_any_page() {
    for body in ["", "{}", "null", r#"{"NextToken":"more"}"#] {
        let aws = Aws::answering(move |_| answer(200, body)).await;
        let status = gateway(&aws).await.describe(first()).await.unwrap_err();
        assert_eq!(reason(&status), (Code::Internal, "UPSTREAM_PROTOCOL".to_owned()), "{body:?}");
        let aws = Aws::answering(move |call| {
            if call.body.contains("NextToken") { answer(200, body) } else { page(&["i-1"], Some("more")) }
        })
        .await;
        let status = gateway(&aws).await.stream(StreamInstanceInformationRequest::default()).await.unwrap_err();
        assert_eq!(reason(&status), (Code::Internal, "UPSTREAM_PROTOCOL".to_owned()), "{body:?} on the second page");
    }
}

#[tokio::test]
async fn a_character_that_is_none_costs_its_node_that_character_and_nobody_else_anything() {
    for broken in [&br"web-\ud83d"[..], b"web-\xff"] {
        let body = [
            br#"{"InstanceInformationList":[{"InstanceId":"i-1","ComputerName":""#,
            broken,
            br#""},{"InstanceId":"i-2","ComputerName":"caf\u00e9"}]}"#,
        ]
        .concat();
        let aws = Aws::answering(move |_| answer(200, body.clone())).await;
        let gateway = gateway(&aws).await;
        let nodes = gateway.describe(first()).await.unwrap().instance_information_list;
        let names: Vec<&str> = nodes.iter().map(ssm_gateway::proto::InstanceInformation::computer_name).collect();
        assert_eq!(names, ["web-\u{fffd}", "caf\u{e9}"]);
        let repaired = r#"ssm_gateway_upstream_repaired_nodes_total{target="default"}"#;
        assert_eq!(metrics(gateway.admin).await[repaired], 1.0);
    }
}

#[tokio::test]
async fn a_time_that_protobuf_does_not_have_is_left_out() {
    let body = r#"{"InstanceInformationList":[{"InstanceId":"i-1","LastPingDateTime":1775836321122},
        {"InstanceId":"i-2","LastPingDateTime":1775836321.122,"RegistrationDate":-62167219200},
        {"InstanceId":"i-3","RegistrationDate":1e300},{"InstanceId":"i-4","LastPingDateTime":-1e300}]}"#;
    let aws = Aws::answering(move |_| answer(200, body)).await;
    let gateway = gateway(&aws).await;
    let nodes = gateway.describe(first()).await.unwrap().instance_information_list;
    let times: Vec<_> = nodes.iter().map(|node| (node.last_ping_date_time, node.registration_date)).collect();
    let exact = prost_types::Timestamp { seconds: 1_775_836_321, nanos: 122_000_000 };
    assert_eq!(times, [(None, None), (Some(exact), None), (None, None), (None, None)]);
    let repaired = r#"ssm_gateway_upstream_repaired_nodes_total{target="default"}"#;
    assert_eq!(metrics(gateway.admin).await[repaired], 4.0);
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_bound_and_no_further() {
    let aws = Aws::answering(|_| answer(200, vec![b' '; 70_000])).await;
    let gateway = Gateway::at(&aws.url(), |config| config.upstream.max_answer_size = 65_536).await;
    let status = gateway.describe(first()).await.unwrap_err();
    assert_eq!(reason(&status), (Code::Internal, "UPSTREAM_PROTOCOL".to_owned()));
    assert_eq!(aws.calls().len(), 1, "it would be so again");
}

#[tokio::test]
async fn a_status_without_an_error_of_aws_is_said_and_tried_again_where_that_may_help() {
    for (status, tries) in
        [(301, 1), (302, 1), (308, 1), (403, 1), (404, 1), (407, 1), (413, 1), (408, 3), (500, 3), (503, 3)]
    {
        for body in ["", "<html>no</html>"] {
            let aws = Aws::answering(move |_| answer(status, body)).await;
            let failed = gateway(&aws).await.describe(first()).await.unwrap_err();
            assert_eq!(reason(&failed), (Code::Unavailable, "TARGET_UNAVAILABLE".to_owned()), "{status}");
            assert!(failed.message().contains(&format!("answered {status} ")), "{}", failed.message());
            assert_eq!(aws.calls().len(), tries, "{status}");
        }
    }
    let aws = Aws::answering(|_| answer(429, "slow down")).await;
    let failed = gateway(&aws).await.describe(first()).await.unwrap_err();
    assert_eq!((failed.code(), aws.calls().len()), (Code::ResourceExhausted, 1));
}

/// Takes signatures of the next five minutes and the last five by a clock that is ten ahead.
async fn ahead() -> Aws {
    Aws::answering(|call| {
        let now = SystemTime::now() + Duration::from_mins(10);
        let signed = call.headers["x-amz-date"].to_str().unwrap();
        let text = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &signed[..4],
            &signed[4..6],
            &signed[6..8],
            &signed[9..11],
            &signed[11..13],
            &signed[13..15]
        );
        let signed = humantime::parse_rfc3339(&text).unwrap();
        let is_taken = now.duration_since(signed).unwrap_or_else(|later| later.duration()) < Duration::from_mins(5);
        let mut answer = match (is_taken, call.is_sts()) {
            (true, true) => session("AssumeRole", "ASIAROLE"),
            (true, false) => page(&["i-1"], None),
            (false, true) => sts_error(403, "SignatureDoesNotMatch"),
            (false, false) => error(400, "InvalidSignatureException"),
        };
        let date = HeaderValue::from_str(&httpdate(now)).unwrap();
        answer.headers_mut().insert(header::DATE, date);
        answer
    })
    .await
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn httpdate(time: SystemTime) -> String {
    use aws_sdk_ssm::primitives::{DateTime, DateTimeFormat};
    DateTime::from(time).fmt(DateTimeFormat::HttpDate).unwrap()
}

#[tokio::test]
async fn a_clock_that_is_wrong_costs_one_more_attempt() {
    let aws = ahead().await;
    let gateway = gateway(&aws).await;
    assert_eq!(gateway.describe(first()).await.unwrap().instance_information_list.len(), 1);
    assert_eq!(aws.calls().len(), 2);
    gateway.describe(first()).await.unwrap();
    assert_eq!(aws.calls().len(), 3, "the clock is known by now");
}

#[tokio::test]
async fn a_clock_that_is_wrong_costs_a_role_one_more_attempt_of_each_service() {
    let aws = ahead().await;
    let gateway = Gateway::at(&aws.url(), |config| {
        forget(config);
        config.upstream.sts_endpoint_url = Some(aws.url());
        config.upstream.role_arn = Some("arn:aws:iam::111122223333:role/Reader".to_owned());
    })
    .await;
    assert_eq!(gateway.describe(first()).await.unwrap().instance_information_list.len(), 1);
    assert_eq!(aws.calls().len(), 4);
}

#[tokio::test]
async fn a_signature_that_is_wrong_by_the_right_clock_is_tried_once() {
    let calls = AtomicUsize::new(0);
    let aws = Aws::answering(move |_| {
        calls.fetch_add(1, Relaxed);
        error(400, "InvalidSignatureException")
    })
    .await;
    let failed = gateway(&aws).await.describe(first()).await.unwrap_err();
    assert_eq!(reason(&failed), (Code::Unavailable, "AWS_CREDENTIALS".to_owned()));
    assert_eq!(aws.calls().len(), 1);
}
