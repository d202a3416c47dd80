//! Another configuration for a gateway that runs.

use std::{process::Command, time::Duration};

use ssm_gateway::{
    app::Signal,
    config::{Config, Target},
    edge::TlsConfig,
    proto::{
        DescribeInstanceInformationRequest, ListTargetsRequest, StreamInstanceInformationRequest,
        target_service_client::TargetServiceClient,
    },
    simulator::{Faults, Simulator},
};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    http::{metrics, status},
    program::{Program, SSM_GATEWAY},
    proofs::{Folder, Issuer, allow, token, with_token},
    support::{Client, Gateway, config, simulator_of, within},
};

/// A configuration with these targets, each in its region.
fn targets(simulator: &Simulator, targets: &[(&str, &str)]) -> Config {
    let mut config = config(&simulator.url());
    for (name, region) in targets {
        config.targets.insert((*name).into(), Target { region: Some((*region).to_owned()), ..Target::default() });
    }
    config
}

async fn running(nodes: usize, of: &[(&str, &str)]) -> (Gateway, Simulator) {
    let simulator = simulator_of(nodes).await;
    let gateway = Gateway::at(&simulator.url(), |config| *config = targets(&simulator, of)).await;
    (gateway, simulator)
}

/// Goes on with this configuration, and waits until it does.
async fn reload(gateway: &Gateway, config: Config) {
    let names: Vec<String> = config.targets().keys().map(ToString::to_string).collect();
    gateway.tell(Signal::Reload(Ok(Box::new(config))));
    within(async { while listed(gateway).await != names {} }).await;
}

async fn listed(gateway: &Gateway) -> Vec<String> {
    let mut client = TargetServiceClient::new(gateway.channel().await);
    let answer = within(client.list_targets(ListTargetsRequest {})).await.unwrap().into_inner();
    answer.targets.into_iter().map(|target| target.name).collect()
}

fn of(target: &str) -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest { target: target.to_owned(), max_results: Some(50), ..Default::default() }
}

async fn ids(gateway: &Gateway, target: &str) -> Vec<String> {
    let nodes = gateway.describe(of(target)).await.unwrap().instance_information_list;
    nodes.into_iter().map(|node| node.instance_id.unwrap()).collect()
}

#[tokio::test]
async fn targets_come_and_go_and_those_that_stay_keep_what_they_know() {
    let (gateway, simulator) = running(60, &[("a", "us-east-1"), ("b", "us-east-1")]).await;
    let (a, _) = (ids(&gateway, "a").await, ids(&gateway, "b").await);
    let calls = simulator.stats().calls;
    let cursor = gateway.describe(of("a")).await.unwrap().next_token;
    reload(&gateway, targets(&simulator, &[("a", "us-east-1"), ("c", "us-east-1")])).await;
    assert_eq!(ids(&gateway, "a").await, a);
    assert_eq!(simulator.stats().calls, calls, "it is in memory");
    assert_eq!(gateway.describe(of("b")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(ids(&gateway, "c").await.len(), 50);
    let rest = gateway.describe(DescribeInstanceInformationRequest { next_token: cursor, ..of("a") }).await.unwrap();
    assert_eq!(rest.instance_information_list.len(), 10, "cursors stay good");
}

#[tokio::test]
async fn a_target_that_is_another_one_now_knows_nothing_of_the_one_before() {
    let (gateway, simulator) = running(60, &[("a", "us-east-1"), ("z", "us-east-1")]).await;
    let east = ids(&gateway, "a").await;
    let slow = Faults { latency: Duration::from_millis(300), ..Faults::default() };
    simulator.set_faults(slow);
    // A call that was begun before goes on where it was.
    let request = StreamInstanceInformationRequest { targets: vec!["a".to_owned()], ..Default::default() };
    let mut pages = within(gateway.client.clone().stream_instance_information(request)).await.unwrap().into_inner();
    let first = within(pages.message()).await.unwrap().unwrap();
    reload(&gateway, targets(&simulator, &[("a", "eu-west-1")])).await;
    let west = ids(&gateway, "a").await;
    assert_ne!(east, west, "not from the memory of the other region");
    let rest = within(pages.message()).await.unwrap().unwrap();
    let whole: Vec<_> = [first, rest].into_iter().flat_map(|page| page.instance_information_list).collect();
    let began: Vec<_> = whole.iter().take(50).map(|node| node.instance_id.clone().unwrap()).collect();
    assert_eq!((whole.len(), began), (60, east));
    assert_eq!(ids(&gateway, "a").await, west);
}

/// The cause for which a token is refused, by both RPCs.
async fn refused(gateway: &Gateway, target: &str, token: &str) -> [String; 2] {
    let unary = DescribeInstanceInformationRequest { next_token: Some(token.to_owned()), ..of(target) };
    let stream = StreamInstanceInformationRequest {
        targets: vec![target.to_owned()],
        resume_tokens: vec![token.to_owned()],
        ..Default::default()
    };
    let statuses = [gateway.describe(unary).await.unwrap_err(), gateway.stream(stream).await.unwrap_err()];
    statuses.map(|status| {
        let mut info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), &*info.reason), (Code::InvalidArgument, "INVALID_NEXT_TOKEN"));
        info.metadata.remove("cause").unwrap()
    })
}

#[tokio::test]
async fn a_token_is_good_just_where_its_target_is_asked_in_the_same_place_as_the_same() {
    let (gateway, simulator) = running(120, &[("a", "us-east-1"), ("z", "us-east-1")]).await;
    let request = StreamInstanceInformationRequest { targets: vec!["a".to_owned()], ..Default::default() };
    let messages = gateway.stream(request).await.unwrap();
    let [first, .., last] = &messages[..] else { panic!("{messages:?}") };
    let mut moved: Vec<Target> = ["role_arn", "profile", "region"].map(|_| Target::default()).into();
    moved[0].role_arn = Some("arn:aws:iam::111122223333:role/Reader".to_owned());
    moved[1].endpoint_url = Some(format!("{}/", simulator.url()));
    moved[2].region = Some("eu-west-1".to_owned());
    for target in moved {
        let mut config = config(&simulator.url());
        config.targets.insert("a".into(), target);
        let other = Gateway::plain(config).await;
        for token in [&first.resume_token, &last.resume_token] {
            assert_eq!(refused(&other, "a", token).await, ["other_query", "other_query"], "of another gateway");
        }
    }
    let replica = Gateway::plain(targets(&simulator, &[("a", "us-east-1")])).await;
    let rest = DescribeInstanceInformationRequest { next_token: Some(first.resume_token.clone()), ..of("a") };
    assert_eq!(replica.walk(rest).await.len(), 70);
    reload(&gateway, targets(&simulator, &[("a", "eu-west-1")])).await;
    for token in [&first.resume_token, &last.resume_token] {
        assert_eq!(refused(&gateway, "a", token).await, ["other_query", "other_query"], "after a reload");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_changes_nothing() {
    let (gateway, simulator) = running(10, &[("a", "us-east-1")]).await;
    ids(&gateway, "a").await;
    let calls = simulator.stats().calls;
    let mut bad = targets(&simulator, &[("b", "us-east-1"), ("c", "us-east-1")]);
    bad.targets.get_mut(&"c".into()).unwrap().role_arn = Some("SsmReader".to_owned());
    gateway.tell(Signal::Reload(Ok(Box::new(bad))));
    let mut keyless = targets(&simulator, &[("b", "us-east-1")]);
    Issuer::new("one").configure(&mut keyless, &Folder::new());
    keyless.allow = vec![allow("*", &[], &[])];
    gateway.tell(Signal::Reload(Ok(Box::new(keyless))));
    let mut certless = targets(&simulator, &[("b", "us-east-1")]);
    let nothing = std::path::PathBuf::from("/nothing");
    certless.edge.tls =
        Some(TlsConfig { cert: nothing.clone(), key: nothing, client_ca: None, require_client_cert: false });
    gateway.tell(Signal::Reload(Ok(Box::new(certless))));
    let is_told = async |is_failed: bool| {
        let last = f64::from(u8::from(!is_failed));
        within(async { while metrics(gateway.admin).await["ssm_gateway_config_last_reload_successful"] != last {} })
            .await;
        assert_eq!(status(gateway.admin).await["has_reload_failed"], is_failed);
    };
    is_told(true).await;
    let unread = ssm_gateway::config::Config::load(Some(std::path::Path::new("/nothing")), |_| {}).unwrap_err();
    gateway.tell(Signal::Reload(Err(unread)));
    let mut marked = targets(&simulator, &[("a", "us-east-1"), ("marker", "us-east-1")]);
    marked.default_target = Some("a".into());
    reload(&gateway, marked).await;
    assert_eq!(listed(&gateway).await, ["a", "marker"]);
    is_told(false).await;
    ids(&gateway, "a").await;
    assert_eq!(simulator.stats().calls, calls, "what is in memory, neither");
}

#[tokio::test]
async fn a_configuration_that_would_open_the_running_address_to_everybody_is_refused() {
    let simulator = simulator_of(5).await;
    let mut guarded = targets(&simulator, &[("a", "us-east-1")]);
    guarded.edge.listen = "0.0.0.0:0".parse().unwrap();
    guarded.auth.tokens = vec![token("ci")];
    guarded.auth.allow_plaintext_tokens = true;
    guarded.allow = vec![allow("*", &[], &[])];
    let gateway = Gateway::serving(guarded.clone(), async |addr| {
        Channel::from_shared(format!("http://127.0.0.1:{}", addr.port())).unwrap().connect().await
    })
    .await;
    // By itself it would do: on loopback.
    let open = targets(&simulator, &[("a", "us-east-1"), ("open", "us-east-1")]);
    gateway.tell(Signal::Reload(Ok(Box::new(open))));
    guarded.targets.insert("marker".into(), Target::default());
    gateway.tell(Signal::Reload(Ok(Box::new(guarded))));
    let status = async |target: &str| {
        let request = with_token(of(target), "ci-secret");
        within(gateway.client.clone().describe_instance_information(request))
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok)
    };
    within(async { while status("marker").await != Code::Ok {} }).await;
    assert_eq!(status("open").await, Code::NotFound);
    assert_eq!(gateway.describe(of("a")).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn policy_and_limits_are_used_from_the_next_call_on() {
    let (gateway, simulator) = running(60, &[("a", "us-east-1")]).await;
    ids(&gateway, "a").await;
    let mut strict = targets(&simulator, &[("a", "us-east-1"), ("b", "us-east-1")]);
    strict.allow =
        vec![allow("anonymous", &[], &["b"]), allow("anonymous", &[ssm_gateway::access::Method::ListTargets], &[])];
    reload(&gateway, strict.clone()).await;
    assert_eq!(gateway.describe(of("a")).await.unwrap_err().code(), Code::PermissionDenied);
    strict.limits.calls_per_second = 1.try_into().ok();
    strict.targets.remove(&"a".into());
    reload(&gateway, strict).await;
    let quota = within(async {
        loop {
            if let Err(status) = gateway.describe(of("b")).await {
                return status;
            }
        }
    });
    assert_eq!(quota.await.get_details_error_info().unwrap().reason, "CALLER_QUOTA");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_has_the_file_read_again_and_a_wrong_one_is_told_with_its_line() {
    let (simulator, folder) = (simulator_of(7).await, Folder::new());
    let mut program = Program::in_front_of(&simulator, &folder, "[targets.a]\n", "127.0.0.1:0", "");
    let mut client = within(Client::connect(format!("http://{}", program.addr))).await.unwrap();
    let mut call = async |target: &str| within(client.describe_instance_information(of(target))).await.map(drop);
    assert!(call("a").await.is_ok());
    folder.write("gateway.toml", "[targets.a]\n[targets.b]\nttl = 'often'\n");
    program.signal("HUP");
    program.until("the old one stays in use");
    assert_eq!(call("b").await.unwrap_err().code(), Code::NotFound);
    folder.write("gateway.toml", "[targets.a]\n[targets.b]\n[targets.c]\nrole_arn = 'x'\n");
    program.signal("HUP");
    program.until("line 4: targets.c.role_arn is wrong");
    assert_eq!(call("b").await.unwrap_err().code(), Code::NotFound);
    folder.write("gateway.toml", "[edge]\nmax_connections = 7\n[targets.a]\n[targets.b]\n");
    program.signal("HUP");
    program.until("used after a restart");
    program.until("the configuration is in use");
    assert!(call("b").await.is_ok());
    let targets = Command::new(SSM_GATEWAY).args(["targets", "--server", &program.addr.to_string()]).output().unwrap();
    assert_eq!(String::from_utf8(targets.stdout).unwrap().lines().count(), 3);
    program.stop();
}
