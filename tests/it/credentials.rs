//! How callers prove who they are.

use std::time::Duration;

use futures_util::stream;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use ssm_gateway::{
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{FailureKind, Simulator},
};
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tonic_types::StatusExt as _;

use crate::{
    http::metrics,
    proofs::{Folder, Issuer, allow, in_seconds, token, with_token},
    support::{Gateway, failing, simulated_with, within},
};

/// A gateway that knows a token and an issuer, and lets both call.
async fn guarded() -> (Gateway, Simulator, Folder, Issuer) {
    let (folder, issuer) = (Folder::new(), Issuer::new("one"));
    let (gateway, simulator) = simulated_with(60, |config| {
        issuer.configure(config, &folder);
        config.auth.tokens = vec![token("ci")];
        config.allow = vec![allow("*", &[], &[])];
        config.edge.reload_interval = Duration::from_millis(5);
    })
    .await;
    (gateway, simulator, folder, issuer)
}

async fn call(gateway: &Gateway, request: Request<DescribeInstanceInformationRequest>) -> Result<(), Status> {
    within(gateway.client.clone().describe_instance_information(request)).await.map(drop)
}

async fn call_with(gateway: &Gateway, token: &str) -> Result<(), Status> {
    call(gateway, with_token(DescribeInstanceInformationRequest::default(), token)).await
}

/// Why a caller was not told.
fn cause(outcome: Result<(), Status>) -> String {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((&*info.domain, &*info.reason), ("ssm-gateway", "UNAUTHENTICATED"));
    info.metadata["cause"].clone()
}

#[tokio::test]
async fn a_caller_who_cannot_be_told_is_refused() {
    let (gateway, simulator, ..) = guarded().await;
    assert!(call_with(&gateway, "ci-secret").await.is_ok());
    let calls = simulator.stats().calls;
    assert_eq!(cause(call(&gateway, Request::new(DescribeInstanceInformationRequest::default())).await), "missing");
    for wrong in ["ci-secre", "ci-secret2", "CI-SECRET", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(cause(call_with(&gateway, wrong).await), "unknown", "{wrong}");
    }
    let mut basic = Request::new(DescribeInstanceInformationRequest::default());
    basic.metadata_mut().insert("authorization", "Basic Y2k6c2VjcmV0".parse().unwrap());
    assert_eq!(cause(call(&gateway, basic).await), "unknown");
    assert_eq!(simulator.stats().calls, calls);
}

#[tokio::test]
async fn health_is_told_to_anybody_and_reflection_to_any_known_caller() {
    let (gateway, ..) = guarded().await;
    let endpoint = tonic::transport::Channel::from_shared(format!("http://{}", gateway.addr)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    assert!(within(HealthClient::new(channel.clone()).check(HealthCheckRequest::default())).await.is_ok());
    let ask = || {
        let list = MessageRequest::ListServices(String::new());
        stream::iter([ServerReflectionRequest { host: String::new(), message_request: Some(list) }])
    };
    let mut client = ServerReflectionClient::new(channel);
    assert_eq!(cause(within(client.server_reflection_info(ask())).await.map(drop)), "missing");
    let answers = within(client.server_reflection_info(with_token(ask(), "ci-secret"))).await.unwrap();
    assert!(within(answers.into_inner().message()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_jwt_must_be_the_issuers_for_this_gateway_and_of_this_time() {
    let (gateway, _simulator, _folder, issuer) = guarded().await;
    assert!(call_with(&gateway, &issuer.token("alice", |_, _| {})).await.is_ok());
    assert!(call_with(&gateway, &issuer.token("alice", |header, _| header.kid = None)).await.is_ok());
    let exact = issuer.token("alice", |_, claims| {
        claims["exp"] = serde_json::from_str(&format!("{}.5", in_seconds(60))).unwrap();
    });
    assert!(call_with(&gateway, &exact).await.is_ok(), "times need not be whole");
    let changed = async |name: &str, value: serde_json::Value| {
        let token = issuer.token("alice", |_, claims| claims[name] = value);
        cause(call_with(&gateway, &token).await)
    };
    assert_eq!(changed("iss", json!("https://other")).await, "unknown");
    assert_eq!(changed("aud", json!(["other"])).await, "unknown");
    assert_eq!(changed("nbf", json!(in_seconds(60))).await, "unknown");
    assert_eq!(changed("exp", json!(in_seconds(-1))).await, "expired");
    assert_eq!(changed("exp", json!("soon")).await, "unknown");
    assert_eq!(changed("sub", json!("two words")).await, "unknown");
    for claim in ["iss", "aud", "exp", "sub"] {
        let token = issuer.token("alice", |_, claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        assert_eq!(cause(call_with(&gateway, &token).await), "unknown", "without {claim}");
    }
}

#[tokio::test]
async fn what_is_no_method_is_unimplemented_to_anybody_and_no_refusal_as_load_balancers_check_it() {
    let (gateway, ..) = guarded().await;
    let mut grpc = tonic::client::Grpc::new(gateway.channel().await);
    for path in ["/AWS.ALB/healthcheck", "/ssm_gateway.v1.TargetService/Nothing", "/grpc.health.v1.Health/Nothing"] {
        for token in [None, Some("wrong"), Some("ci-secret")] {
            let request = HealthCheckRequest::default();
            let request =
                token.map_or_else(|| Request::new(request.clone()), |token| with_token(request.clone(), token));
            let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
            within(grpc.ready()).await.unwrap();
            let status = within(grpc.unary(request, path.parse().unwrap(), codec)).await.unwrap_err();
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), &*info.reason), (Code::Unimplemented, "UNIMPLEMENTED"), "{path} {token:?}");
        }
    }
    let metrics = metrics(gateway.admin).await;
    let refused: f64 =
        metrics.iter().filter(|(name, _)| name.contains("refused_calls_total")).map(|(_, calls)| calls).sum();
    assert_eq!(refused, 0.0);
}

#[tokio::test]
async fn an_issuer_may_have_keys_of_several_kinds_and_sign_only_in_the_ways_that_are_configured() {
    let (gateway, _simulator, folder, by_ec) = guarded().await;
    let by_rsa = Issuer::by_rsa("two");
    folder.write("jwks.json", by_ec.jwks_with(&[&by_rsa]));
    within(async { while call_with(&gateway, &by_rsa.token("alice", |_, _| {})).await.is_err() {} }).await;
    assert!(call_with(&gateway, &by_ec.token("alice", |_, _| {})).await.is_ok());
    let other_way = by_rsa.token("alice", |header, _| header.alg = Algorithm::RS512);
    assert_eq!(cause(call_with(&gateway, &other_way).await), "unknown");
    // A token that was known is not once its key is gone.
    let token = by_rsa.token("bob", |_, _| {});
    assert!(call_with(&gateway, &token).await.is_ok());
    folder.write("jwks.json", by_ec.jwks());
    within(async { while call_with(&gateway, &token).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_jwt_that_somebody_else_signed_proves_nothing() {
    let (gateway, _simulator, _folder, issuer) = guarded().await;
    let other = Issuer::new("one").token("alice", |_, _| {});
    assert_eq!(cause(call_with(&gateway, &other).await), "unknown");
    let unknown_key = issuer.token("alice", |header, _| header.kid = Some("two".to_owned()));
    assert_eq!(cause(call_with(&gateway, &unknown_key).await), "unknown");
    let token = issuer.token("alice", |_, _| {});
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = head.split_once('.').unwrap();
    let more = issuer.token("root", |_, _| {}).split('.').nth(1).unwrap().to_owned();
    assert_ne!(claims, more);
    for tampered in [format!("{header}.{more}.{signature}"), format!("{head}."), head.to_owned()] {
        assert_eq!(cause(call_with(&gateway, &tampered).await), "unknown");
    }
    // The public key, taken for a secret that both sides share.
    let shared = EncodingKey::from_secret(issuer.jwks().as_bytes());
    let header = jsonwebtoken::Header::new(Algorithm::HS256);
    let claims = json!({ "iss": "https://issuer", "aud": "ssm-gateway", "sub": "alice", "exp": in_seconds(60) });
    let confused = jsonwebtoken::encode(&header, &claims, &shared).unwrap();
    assert_eq!(cause(call_with(&gateway, &confused).await), "unknown");
}

#[tokio::test]
async fn the_issuers_keys_are_used_anew_when_they_change_and_bad_ones_are_not() {
    let (gateway, _simulator, folder, old) = guarded().await;
    let (new, newer) = (Issuer::new("two"), Issuer::new("three"));
    let becomes_known = async |issuer: &Issuer| {
        within(async {
            while call_with(&gateway, &issuer.token("alice", |_, _| {})).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    };
    folder.write("jwks.json", new.jwks());
    becomes_known(&new).await;
    assert_eq!(cause(call_with(&gateway, &old.token("alice", |_, _| {})).await), "unknown");
    for bad in ["", "{", r#"{"keys":[]}"#] {
        folder.write("jwks.json", bad);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(call_with(&gateway, &new.token("alice", |_, _| {})).await.is_ok(), "{bad:?}");
    }
    folder.write("jwks.json", newer.jwks());
    becomes_known(&newer).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_callers_credential_expires() {
    let (gateway, simulator, _folder, issuer) = guarded().await;
    assert!(call_with(&gateway, "ci-secret").await.is_ok());
    simulator.set_faults(failing(FailureKind::Hang));
    let token = issuer.token("alice", |_, claims| claims["exp"] = json!(in_seconds(2)));
    let request = with_token(StreamInstanceInformationRequest::default(), &token);
    let mut pages = within(gateway.client.clone().stream_instance_information(request)).await.unwrap().into_inner();
    assert_eq!(within(pages.message()).await.unwrap().unwrap().instance_information_list.len(), 50);
    let ended = within(pages.message()).await.map(drop);
    assert_eq!(cause(ended), "expired");
    assert_eq!(cause(call_with(&gateway, &token).await), "expired");
}
