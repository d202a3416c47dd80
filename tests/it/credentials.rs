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
    program::Program,
    proofs::{Folder, Issuer, allow, in_seconds, token, with_token},
    support::{Client, Gateway, failing, simulated_with, within},
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
    assert_eq!(changed("iss", json!(["https://issuer"])).await, "unknown", "an issuer is one string");
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

#[tokio::test(flavor = "multi_thread")]
async fn the_issuers_keys_are_used_anew_when_they_change_and_bad_ones_are_not() {
    let (folder, old, new, newer) = (Folder::new(), Issuer::new("one"), Issuer::new("two"), Issuer::new("three"));
    folder.write("jwks.json", old.jwks());
    let (client, mut program, _simulator) = guarded_program(&folder).await;
    let call_by = async |issuer: &Issuer| {
        let request = with_token(DescribeInstanceInformationRequest::default(), &issuer.token("alice", |_, _| {}));
        within(client.clone().describe_instance_information(request)).await.map(drop)
    };
    folder.write("jwks.json", new.jwks());
    program.until("are used from now on");
    call_by(&new).await.unwrap();
    assert_eq!(cause(call_by(&old).await), "unknown");
    let of_no_use = json!({ "keys": [{ "kty": "oct", "k": "AAAA" }, newer.key(|jwk| jwk["x"] = json!("AAAA"))] });
    for (bad, reason) in [
        ("", "it is no JSON: line 1, column 0"),
        ("{", "it is no JSON: line 1, column 1"),
        (r#"{"keys":[]}"#, "it holds no key that can be used"),
        (&of_no_use.to_string(), "symmetric keys (kty oct) are not accepted"),
    ] {
        folder.write("jwks.json", bad);
        program.until(reason);
        call_by(&new).await.unwrap();
    }
    folder.write("jwks.json", newer.jwks());
    program.until("are used from now on");
    call_by(&newer).await.unwrap();
}

#[tokio::test]
async fn a_jwt_whose_header_must_be_understood_and_is_not_proves_nothing() {
    let (gateway, _simulator, _folder, issuer) = guarded().await;
    let call = async |header: serde_json::Value| call_with(&gateway, &issuer.token_with(&header, &json!({}))).await;
    assert!(call(json!({ "alg": "ES256", "typ": "at+jwt", "cty": 5 })).await.is_ok());
    for header in [
        json!({ "alg": "ES256", "crit": ["exp"] }),
        json!({ "alg": "ES256", "crit": ["b64"], "b64": false }),
        json!({ "alg": "ES256", "crit": [] }),
        json!({ "alg": "ES256", "crit": null }),
        json!({ "alg": "ES256", "crit": "x" }),
        json!({ "alg": "ES256", "kid": 5 }),
        json!({ "alg": "es256" }),
        json!({}),
    ] {
        assert_eq!(cause(call(header.clone()).await), "unknown", "{header}");
    }
}

#[tokio::test]
async fn ed25519_is_the_algorithm_of_both_its_names() {
    let (gateway, _simulator, folder, _) = guarded().await;
    let issuer = Issuer::by_ed("ed");
    for name in ["EdDSA", "Ed25519"] {
        let jwk = issuer.key(|jwk| drop(jwk.insert("alg".to_owned(), json!(name))));
        folder.write("jwks.json", json!({ "keys": [jwk] }).to_string());
        for algorithm in ["EdDSA", "Ed25519"] {
            let token = || issuer.token_with(&json!({ "alg": algorithm }), &json!({}));
            within(async { while call_with(&gateway, &token()).await.is_err() {} }).await;
        }
    }
    let named: ssm_gateway::edge::SigningAlgorithm = serde_json::from_str("\"Ed25519\"").unwrap();
    assert_eq!(named, ssm_gateway::edge::SigningAlgorithm::EdDSA);
}

/// The program, which admits the holders of JWTs by the set in `jwks.json` and logs at debug, and a caller of it.
async fn guarded_program(folder: &Folder) -> (Client, Program, Simulator) {
    let config = format!(
        "[edge]\nreload_interval = '5ms'\n[auth.jwt]\njwks = '{}'\nissuer = 'https://issuer'\naudiences = ['ssm-gateway']\n[[allow]]\nprincipal = '*'\n\
         [log]\nfilter = 'debug'\n",
        folder.path("jwks.json").display()
    );
    let simulator = ssm_gateway::simulator::Config::default().start().await.unwrap();
    let program = Program::in_front_of(&simulator, folder, &config, "127.0.0.1:0", "");
    let client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    (client, program, simulator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_wrong_is_skipped_by_name_and_the_others_work_whether_they_have_an_id_or_not() {
    let folder = Folder::new();
    let (named, nameless, empty, rsa) = (Issuer::new("named"), Issuer::new("a"), Issuer::new("b"), Issuer::by_rsa("r"));
    let set = json!({ "keys": [
        Issuer::new("bad").key(|jwk| jwk["kid"] = json!(5)),
        null,
        named.key(|_| {}),
        Issuer::new("chain").key(|jwk| drop(jwk.insert("x5c".to_owned(), json!("MIIB")))),
        nameless.key(|jwk| drop(jwk.remove("kid"))),
        empty.key(|jwk| {
            let nulls = ["alg", "use", "x5t", "key_ops", "x5c"].map(|member| (member.to_owned(), json!(null)));
            jwk.extend(nulls.into_iter().chain([("kid".to_owned(), json!(""))]));
        }),
        rsa.key(|jwk| jwk["n"] = json!("AQAB")),
        { "kty": "unheard-of", "kid": "new" },
        Issuer::new("kindless").key(|jwk| jwk["kty"] = json!(null)),
        rsa.key(|jwk| drop(jwk.insert("d".to_owned(), json!("private-exponent")))),
    ] });
    folder.write("jwks.json", format!("\u{feff}{set}"));
    let (mut client, program, _simulator) = guarded_program(&folder).await;
    for issuer in [&named, &nameless, &empty, &rsa] {
        for token in [
            issuer.token("alice", |_, _| {}),
            issuer.token("alice", |header, _| header.kid = None),
            issuer.token("alice", |header, _| header.kid = Some(String::new())),
        ] {
            let request = with_token(DescribeInstanceInformationRequest::default(), &token);
            within(client.describe_instance_information(request)).await.unwrap();
        }
    }
    drop(client);
    let log = program.stop();
    let skipped: Vec<&str> = log.lines().filter(|line| line.contains("WARN") && line.contains("is skipped")).collect();
    for (line, parts) in skipped.iter().zip([
        &["keys[0]", "`kid` is not a string"][..],
        &["keys[1]", "no object"],
        &["keys[3], kid chain", "`x5c` is not a list of strings"],
        &["keys[6], kid r", "`n` has a wrong length"],
        &["keys[8], kid kindless", "`kty` is missing"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert_eq!(skipped.len(), 5, "{log}");
    assert!(!log.contains("private-exponent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_token_is_refused_is_logged_and_the_token_is_not() {
    let (folder, issuer) = (Folder::new(), Issuer::new("one"));
    folder.write("jwks.json", issuer.jwks());
    let (mut client, program, _simulator) = guarded_program(&folder).await;
    let mut refused = Vec::new();
    for (token, reason) in [
        (
            issuer.token("alice", |header, _| header.kid = Some("two".to_owned())),
            "no usable key of the issuer has its `kid`",
        ),
        (Issuer::new("one").token("alice", |_, _| {}), "no key of the issuer made its signature"),
        (issuer.token_with(&json!({ "alg": "ES256", "crit": [] }), &json!({})), "its `crit` names extensions"),
        (issuer.token("two words", |_, _| {}), "its `sub` is not"),
        (
            issuer.token("alice", |_, claims| claims["iss"] = json!(["https://issuer"])),
            "its `iss` is not auth.jwt.issuer",
        ),
        (issuer.token("alice", |_, claims| claims["aud"] = json!("x")), "its `aud` names none"),
        (issuer.token("alice", |_, claims| claims["exp"] = json!("x")), "a time of it is no number"),
        (issuer.token("alice", |_, claims| claims["exp"] = json!(1)), "it has expired"),
        (issuer.token("alice", |_, claims| claims["nbf"] = json!(in_seconds(600))), "its `nbf` is not reached"),
        ("opaque-secret".to_owned(), "it is no JWT"),
        ("opaque-secret.e30.e30".to_owned(), "its header is no JSON object"),
    ] {
        let request = with_token(DescribeInstanceInformationRequest::default(), &token);
        let status = within(client.describe_instance_information(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{reason}");
        refused.push((token, reason));
    }
    drop(client);
    let log = program.stop();
    for (token, reason) in refused {
        assert!(log.lines().any(|line| line.contains("DEBUG") && line.contains(reason)), "{reason}: {log}");
        assert!(!log.contains(&token), "{reason}");
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_callers_credential_expires() {
    let (gateway, simulator, _folder, issuer) = guarded().await;
    assert!(call_with(&gateway, "ci-secret").await.is_ok());
    simulator.set_faults(failing(FailureKind::Hang));
    let token = issuer.token("alice", |_, claims| claims["exp"] = json!(in_seconds(6)));
    let request = with_token(StreamInstanceInformationRequest::default(), &token);
    let mut pages = within(gateway.client.clone().stream_instance_information(request)).await.unwrap().into_inner();
    assert_eq!(within(pages.message()).await.unwrap().unwrap().instance_information_list.len(), 50);
    let ended = within(pages.message()).await.map(drop);
    assert_eq!(cause(ended), "expired");
    assert_eq!(cause(call_with(&gateway, &token).await), "expired");
}
