//! Many accounts and regions through the running gateway: who is asked for whom, and what a failing one does to the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ssm_gateway::{
    config::{Config, Target},
    proto::{
        DescribeInstanceInformationRequest, ListTargetsRequest, ReadOptions, StreamInstanceInformationRequest,
        StreamInstanceInformationResponse, TargetState, target_service_client::TargetServiceClient,
    },
    simulator::{self, FailureKind, Faults, Scope, Simulator},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{Gateway, failing, until, within};

/// Each target's name, account and region; the first is of the credentials themselves.
const TARGETS: [(&str, &str, &str); 4] = [
    ("home", "123456789012", "us-east-1"),
    ("prod-eu", "111122223333", "eu-west-1"),
    ("prod-us", "111122223333", "us-east-1"),
    ("test-eu", "444455556666", "eu-west-1"),
];

fn scope(name: &str) -> Scope {
    let (_, account, region) = TARGETS.iter().find(|target| target.0 == name).unwrap();
    Scope::new(account, region)
}

fn targets(config: &mut Config, endpoint: &str) {
    config.upstream.sts_endpoint_url = Some(endpoint.to_owned());
    config.upstream.external_id = Some("gateway".to_owned());
    (config.listing.hold_off, config.listing.max_hold_off) = (Duration::from_mins(1), Duration::from_mins(1));
    for (name, account, region) in TARGETS {
        let role_arn = (name != "home").then(|| format!("arn:aws:iam::{account}:role/SsmReader"));
        let target = Target { region: Some(region.to_owned()), role_arn, ..Target::default() };
        config.targets.insert(name.into(), target);
    }
}

async fn simulated_with(configure: impl FnOnce(&mut simulator::Config)) -> (Gateway, Simulator) {
    let mut config = simulator::Config { nodes: 130, external_id: Some("gateway".to_owned()), ..Default::default() };
    configure(&mut config);
    let simulator = config.start().await.unwrap();
    let url = simulator.url();
    (Gateway::at(&url, |config| targets(config, &url)).await, simulator)
}

async fn simulated() -> (Gateway, Simulator) {
    simulated_with(|_| {}).await
}

fn of(target: &str) -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest { target: target.to_owned(), ..Default::default() }
}

fn over(targets: &[&str]) -> StreamInstanceInformationRequest {
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    StreamInstanceInformationRequest { targets, ..Default::default() }
}

/// The IDs of each target's nodes, in their order.
fn by_target(messages: &[StreamInstanceInformationResponse]) -> BTreeMap<String, Vec<String>> {
    let mut by_target = BTreeMap::<_, Vec<_>>::new();
    for message in messages {
        let ids = message.instance_information_list.iter().map(|node| node.instance_id().to_owned());
        by_target.entry(message.target.clone()).or_default().extend(ids);
    }
    by_target
}

/// All IDs of a target, by unary calls.
async fn walked(gateway: &Gateway, target: &str) -> Vec<String> {
    gateway.walk(of(target)).await.iter().map(|node| node.instance_id().to_owned()).collect()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn each_target_is_asked_with_its_own_credentials_in_its_own_region() {
    let (gateway, simulator) = simulated().await;
    let mut all = BTreeSet::new();
    for (name, account, region) in TARGETS {
        all.extend(walked(&gateway, name).await);
        assert_eq!(simulator.stats().calls_by_scope[&format!("{account}/{region}")], 3);
    }
    assert_eq!(all.len(), 4 * 130, "nothing is of two");
    assert_eq!((simulator.stats().calls, simulator.stats().roles_assumed), (12, 3));
}

#[tokio::test]
async fn a_stream_over_many_targets_gives_each_its_own_messages() {
    let (gateway, simulator) = simulated().await;
    let messages = gateway.stream(over(&["*"])).await.unwrap();
    let streamed = by_target(&messages);
    assert_eq!(streamed.len(), 4);
    for (name, ids) in &streamed {
        assert_eq!(*ids, walked(&gateway, name).await);
    }
    assert_eq!(simulator.stats().calls, 12, "a walk a target");
    assert!(messages.iter().all(|message| message.as_of.is_some() && !message.resume_token.is_empty()));
    let names = async |targets: &[&str]| by_target(&gateway.stream(over(targets)).await.unwrap()).into_keys().collect();
    let names: [Vec<String>; 3] = [names(&["prod-*"]).await, names(&["*-eu", "prod-eu"]).await, names(&["home"]).await];
    assert_eq!(names, [vec!["prod-eu", "prod-us"], vec!["prod-eu", "test-eu"], vec!["home"]]);
}

#[tokio::test]
async fn a_stream_goes_on_from_any_set_of_tokens_and_loses_nothing() {
    let (gateway, _simulator) = simulated().await;
    let request = StreamInstanceInformationRequest { page_size: Some(30), ..over(&["*"]) };
    let messages = gateway.stream(request.clone()).await.unwrap();
    let whole = by_target(&messages);
    for taken in [0, 1, 5, 9, messages.len()] {
        let (before, _) = messages.split_at(taken);
        let latest: BTreeMap<_, _> =
            before.iter().map(|message| (&*message.target, message.resume_token.clone())).collect();
        let request =
            StreamInstanceInformationRequest { resume_tokens: latest.into_values().collect(), ..request.clone() };
        let mut joined = by_target(before);
        for (target, ids) in by_target(&gateway.stream(request).await.unwrap()) {
            joined.entry(target).or_default().extend(ids);
        }
        assert_eq!(joined, whole, "after {taken} messages");
    }
}

#[tokio::test]
async fn a_resume_token_is_of_one_of_the_targets_and_each_has_one() {
    let (gateway, _simulator) = simulated().await;
    let token = gateway.stream(over(&["home"])).await.unwrap()[0].resume_token.clone();
    for (targets, tokens, told, field) in [
        (&["prod-*"][..], vec![token.clone()], "INVALID_NEXT_TOKEN", "resume_tokens[0]"),
        (&["*"], vec![String::new(), "x".to_owned()], "INVALID_NEXT_TOKEN", "resume_tokens[1]"),
        (&["*"], vec![token.clone(), token.clone()], "INVALID_ARGUMENT", "resume_tokens[1]"),
    ] {
        let request = StreamInstanceInformationRequest { resume_tokens: tokens, ..over(targets) };
        let status = gateway.stream(request).await.unwrap_err();
        assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, told));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
}

#[tokio::test]
async fn a_target_that_fails_is_told_and_the_rest_goes_on_to_the_end() {
    let (gateway, simulator) = simulated().await;
    simulator.set_faults_of(scope("prod-eu"), failing(FailureKind::AccessDenied));
    simulator.set_faults_of(scope("test-eu"), failing(FailureKind::Throttling));
    let messages = gateway.stream(over(&["*"])).await.unwrap();
    let ids = by_target(&messages);
    assert_eq!((ids["home"].len(), ids["prod-us"].len(), ids["prod-eu"].len()), (130, 130, 0));
    let unreachable: BTreeMap<_, _> = messages
        .iter()
        .filter_map(|message| Some((&*message.target, (message.unreachable.as_ref()?, &*message.resume_token))))
        .collect();
    let (denied, token) = &unreachable["prod-eu"];
    assert_eq!((Code::from(denied.code), &*denied.reason, *token), (Code::PermissionDenied, "AWS_ACCESS_DENIED", ""));
    assert!(denied.message.contains("prod-eu") && !denied.message.contains("111122223333"));
    let (throttled, _) = &unreachable["test-eu"];
    assert_eq!((Code::from(throttled.code), &*throttled.reason), (Code::ResourceExhausted, "THROTTLING"));
    assert!(throttled.retry_after.is_some());
    assert_eq!(unreachable.len(), 2);
}

#[tokio::test]
async fn where_all_targets_fail_or_the_only_one_the_call_fails() {
    let (gateway, simulator) = simulated().await;
    simulator.set_faults(failing(FailureKind::AccessDenied));
    for targets in [&["*"][..], &["prod-eu"], &["test-*"]] {
        let status = gateway.stream(over(targets)).await.unwrap_err();
        assert_eq!((status.code(), &*reason(&status)), (Code::PermissionDenied, "AWS_ACCESS_DENIED"));
    }
}

#[tokio::test]
async fn a_target_that_fails_in_the_middle_is_told_with_its_last_token() {
    let (gateway, simulator) = simulated().await;
    simulator.set_faults_of(scope("prod-eu"), Faults { expire_tokens: true, ..Faults::default() });
    let messages = gateway.stream(over(&["prod-*"])).await.unwrap();
    let ids = by_target(&messages);
    assert_eq!((ids["prod-eu"].len(), ids["prod-us"].len()), (50, 130));
    let [page, told] = &messages.iter().filter(|message| message.target == "prod-eu").collect::<Vec<_>>()[..] else {
        panic!("a page and a failure: {messages:?}")
    };
    let unreachable = told.unreachable.as_ref().unwrap();
    assert_eq!((Code::from(unreachable.code), &*unreachable.reason), (Code::Aborted, "LISTING_EXPIRED"));
    assert_eq!(told.resume_token, page.resume_token);
    assert!(told.as_of.is_none() && told.instance_information_list.is_empty());
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_is_access_denied_and_names_no_account() {
    let (gateway, simulator) = simulated().await;
    let denied = Faults { denied_roles: vec!["SsmReader".to_owned()], ..Faults::default() };
    simulator.set_faults_of(scope("prod-eu"), denied);
    let status = gateway.describe(of("prod-eu")).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::PermissionDenied, "AWS_ACCESS_DENIED"), "{status:?}");
    assert!(status.message().contains("prod-eu") && !format!("{status:?}").contains("111122223333"));
    assert_eq!(gateway.describe(of("prod-us")).await.unwrap().instance_information_list.len(), 10);
    let (gateway, _simulator) = simulated_with(|config| config.external_id = Some("another".to_owned())).await;
    let status = gateway.describe(of("prod-eu")).await.unwrap_err();
    assert_eq!(reason(&status), "AWS_ACCESS_DENIED", "the external ID is wrong");
}

#[tokio::test]
async fn credentials_of_a_role_are_renewed_before_they_run_out() {
    // The SDK renews them ten seconds early.
    let (gateway, simulator) = simulated_with(|config| config.session_lifetime = Some(Duration::from_secs(12))).await;
    let now = ReadOptions { max_age: Some(prost_types::Duration::default()), max_stale: None };
    within(async {
        while simulator.stats().roles_assumed < 3 {
            gateway
                .describe(DescribeInstanceInformationRequest { read_options: Some(now), ..of("prod-eu") })
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(simulator.stats().calls > 10 * simulator.stats().roles_assumed, "and kept until then");
}

#[tokio::test]
async fn a_call_without_a_target_needs_a_default() {
    let (gateway, simulator) = simulated().await;
    for (status, field) in
        [(gateway.describe(of("")).await.map(drop), "target"), (gateway.stream(over(&[""])).await.map(drop), "targets")]
    {
        let status = status.unwrap_err();
        assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "INVALID_ARGUMENT"));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    let url = simulator.url();
    let gateway = Gateway::at(&url, |config| {
        targets(config, &url);
        config.default_target = Some("prod-us".into());
    })
    .await;
    let messages = gateway.stream(over(&[])).await.unwrap();
    assert!(messages.iter().all(|message| message.target == "prod-us"));
    gateway.describe(of("")).await.unwrap();
    assert_eq!(simulator.stats().calls_by_scope.into_keys().collect::<Vec<_>>(), ["111122223333/us-east-1"]);
}

#[tokio::test]
async fn the_targets_are_listed_with_their_state() {
    let (gateway, simulator) = simulated().await;
    let mut client = TargetServiceClient::connect(format!("http://{}", gateway.addr)).await.unwrap();
    let mut list = async || within(client.list_targets(ListTargetsRequest {})).await.unwrap().into_inner().targets;
    let listed = list().await;
    let known: Vec<_> = listed.iter().map(|target| (&*target.name, &*target.region)).collect();
    assert_eq!(known, TARGETS.map(|(name, _, region)| (name, region)));
    assert!(listed.iter().all(|target| target.state() == TargetState::Unused && target.last_answered.is_none()));
    assert_eq!(simulator.stats().calls, 0, "AWS is not asked");

    simulator.set_faults_of(scope("prod-eu"), failing(FailureKind::AccessDenied));
    simulator.set_faults_of(scope("prod-us"), failing(FailureKind::Throttling));
    simulator.set_faults_of(scope("test-eu"), failing(FailureKind::InternalError));
    gateway.stream(over(&["*"])).await.unwrap();
    let listed = list().await;
    let states: Vec<_> = listed.iter().map(ssm_gateway::proto::Target::state).collect();
    assert_eq!(
        states,
        [TargetState::Ready, TargetState::Denied, TargetState::Throttled, TargetState::Unavailable],
        "{listed:?}"
    );
    assert!(listed[0].last_answered.is_some() && listed[1].last_answered.is_none());
    simulator.set_faults_of(scope("prod-eu"), Faults::default());
    until(|| gateway.listings.walks() == 0).await;
}
