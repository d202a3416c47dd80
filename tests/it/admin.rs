//! What administrators are told, and who is an administrator.

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use ssm_gateway::{
    access::TokenHash,
    app::Signal,
    config::Target,
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
    simulator::{FailureKind, Faults, Scope},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time};
use tonic::Request;

use crate::{
    http::{get, get_with, metrics, status},
    proofs::{Folder, Secured, allow, sha256, token, with_token},
    status::patient,
    support::{Gateway, config, failing, filter, filtered, forget, simulated, simulated_with, simulator_of, within},
};

const DESCRIBE: &str = "ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";

/// Where one of the regions misbehaves.
fn eu() -> Scope {
    Scope::new("123456789012", "eu-west-1")
}

/// The metrics once no call goes on: a call is told of a moment after its caller has the answer.
pub(crate) async fn idle(admin: SocketAddr) -> BTreeMap<String, f64> {
    within(async {
        loop {
            let metrics = metrics(admin).await;
            let mut active = metrics.iter().filter(|(name, _)| name.starts_with("ssm_gateway_active_calls"));
            if active.all(|(_, calls)| *calls == 0.0) {
                return metrics;
            }
        }
    })
    .await
}

/// Asks until it is so.
async fn until_code(addr: SocketAddr, path: &str, code: u16) -> String {
    within(async {
        loop {
            match get(addr, path).await {
                (found, body) if found == code => return body,
                _ => time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_add_up_to_what_was_called() {
    let (gateway, simulator) = simulated(120).await;
    join_all((0..20).map(|_| gateway.describe(DescribeInstanceInformationRequest::default()))).await;
    gateway.stream(StreamInstanceInformationRequest::default()).await.unwrap();
    let refused = DescribeInstanceInformationRequest { max_results: Some(4), ..Default::default() };
    gateway.describe(refused).await.unwrap_err();
    simulator.set_faults(failing(FailureKind::Throttling));
    gateway.describe(filtered(vec![filter("PingStatus", &["Online"])])).await.unwrap_err();
    gateway.describe(filtered(vec![filter("PingStatus", &["Online"])])).await.unwrap_err();

    let metrics = idle(gateway.admin).await;
    let of = |name: &str| *metrics.get(name).unwrap_or_else(|| panic!("{name} is not among {metrics:#?}"));
    let calls = |method: &str, code: &str| {
        let labels = format!("rpc_method=\"{method}\",rpc_response_status_code=\"{code}\",rpc_system_name=\"grpc\"");
        of(&format!("rpc_server_call_duration_seconds_count{{{labels}}}"))
    };
    let stream = DESCRIBE.replace("Describe", "Stream");
    assert_eq!((calls(DESCRIBE, "OK"), calls(&stream, "OK")), (20.0, 1.0));
    assert_eq!((calls(DESCRIBE, "INVALID_ARGUMENT"), calls(DESCRIBE, "RESOURCE_EXHAUSTED")), (1.0, 2.0));
    let reads = |outcome: &str| of(&format!("ssm_gateway_reads_total{{outcome=\"{outcome}\",target=\"default\"}}"));
    assert_eq!(reads("hit") + reads("coalesced") + reads("miss"), 21.0);
    assert_eq!((reads("failed"), reads("refused"), reads("stale")), (1.0, 1.0, 0.0));
    let fetches = |outcome: &str| {
        of(&format!("ssm_gateway_upstream_fetch_duration_seconds_count{{outcome=\"{outcome}\",target=\"default\"}}"))
    };
    assert_eq!((fetches("answered"), fetches("throttled")), (3.0, 1.0));
    assert_eq!(of("ssm_gateway_upstream_wait_seconds_count{target=\"default\"}"), 4.0);
    assert_eq!(of("ssm_gateway_target_state{state=\"throttled\",target=\"default\"}"), 1.0);
    assert!(
        of("ssm_gateway_upstream_rate{target=\"default\"}") < of("ssm_gateway_upstream_max_rate{target=\"default\"}")
    );
    assert_eq!(of("ssm_gateway_listings{state=\"complete\",target=\"default\"}"), 1.0);
    assert_eq!((of("ssm_gateway_connections"), of("ssm_gateway_connections_accepted_total")), (1.0, 1.0));
    assert_eq!(of(&format!("ssm_gateway_active_calls{{rpc_method=\"{DESCRIBE}\"}}")), 0.0);
    assert!(of("ssm_gateway_listing_bytes") > 10_000.0 && of("process_resident_memory_bytes") > 1e6);
    for name in ["cpu_seconds_total", "open_fds", "virtual_memory_bytes", "start_time_seconds", "threads"] {
        assert!(of(&format!("process_{name}")) > 0.0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_for_a_reason_of_the_gateways_own_is_counted_by_it() {
    let (gateway, simulator) = simulated_with(1, |config| config.service.max_request_size = 1000).await;
    let empty = DescribeInstanceInformationRequest::default;
    let unknown = DescribeInstanceInformationRequest { target: "nowhere".to_owned(), ..empty() };
    let invalid = StreamInstanceInformationRequest { page_size: Some(0), ..Default::default() };
    let large = DescribeInstanceInformationRequest { next_token: Some("x".repeat(2000)), ..empty() };
    let mut malformed = Request::new(empty());
    malformed.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let mut late = Request::new(empty());
    late.metadata_mut().insert("grpc-timeout", "150m".parse().unwrap());
    gateway.describe(unknown).await.unwrap_err();
    gateway.stream(invalid).await.unwrap_err();
    gateway.describe(large).await.unwrap_err();
    simulator.set_faults(failing(FailureKind::Hang));
    for request in [malformed, late] {
        within(patient(gateway.addr).describe_instance_information(request)).await.unwrap_err();
    }
    simulator.set_faults(failing(FailureKind::Reset));
    gateway.describe(filtered(vec![filter("PingStatus", &["Online"])])).await.unwrap_err();
    let metrics = idle(gateway.admin).await;
    let counted = metrics.iter().filter(|(name, calls)| name.contains("refused_calls_total") && **calls > 0.0);
    let counted: Vec<_> = counted.map(|(name, calls)| (name.rsplit("reason=").next().unwrap(), *calls)).collect();
    let expected = [
        "DEADLINE_EXCEEDED",
        "INVALID_ARGUMENT",
        "MALFORMED_REQUEST",
        "REQUEST_TOO_LARGE",
        "TARGET_UNAVAILABLE",
        "UNKNOWN_TARGET",
    ];
    assert_eq!(counted, expected.map(|reason| (&*format!("\"{reason}\"}}").leak(), 1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_bounded_whatever_callers_say() {
    let (gateway, _simulator) = simulated_with(1, |config| {
        config.auth.tokens = vec![token("ci")];
        config.allow = vec![allow("token:ci", &[], &[])];
    })
    .await;
    let channel = gateway.channel().await;
    for call in 0..50 {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        within(grpc.ready()).await.unwrap();
        let path = format!("/made.up/Method{call}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        within(grpc.unary(tonic::Request::new(()), path, codec)).await.unwrap_err();
        gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap_err();
        let request = with_token(DescribeInstanceInformationRequest::default(), &format!("wrong-{call}"));
        within(gateway.client.clone().describe_instance_information(request)).await.unwrap_err();
    }
    let metrics = metrics(gateway.admin).await;
    assert_eq!(metrics["ssm_gateway_refused_calls_total{cause=\"missing\",reason=\"UNAUTHENTICATED\"}"], 50.0);
    assert_eq!(metrics["ssm_gateway_refused_calls_total{cause=\"unknown\",reason=\"UNAUTHENTICATED\"}"], 50.0);
    assert!(metrics.keys().all(|name| !name.contains("made.up") && !name.contains("wrong")), "{metrics:#?}");
    assert!(metrics.len() < 200, "{}", metrics.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_who_has_an_answer_of_every_required_target() {
    let simulator = simulator_of(1).await;
    simulator.set_faults_of(eu(), failing(FailureKind::Reset));
    let gateway = Gateway::at(&simulator.url(), |config| {
        config.listing.hold_off = Duration::from_millis(10);
        config.listing.max_hold_off = Duration::from_millis(20);
        config.upstream.retries = 0;
        for (name, region, required) in
            [("needed", "eu-west-1", true), ("other", "eu-west-1", false), ("fine", "us-east-1", true)]
        {
            let region = Some(region.to_owned());
            config.targets.insert(name.into(), Target { region, required, ..Target::default() });
        }
    })
    .await;
    let why = until_code(gateway.admin, "/readyz", 503).await;
    assert!(why.contains("needed") && !why.contains("other"), "{why}");
    assert_eq!(get(gateway.admin, "/livez").await.0, 200, "it lives, though it is not ready");
    assert_eq!(metrics(gateway.admin).await["ssm_gateway_ready"], 0.0);
    simulator.set_faults_of(eu(), Faults::default());
    until_code(gateway.admin, "/readyz", 200).await;
    assert!(status(gateway.admin).await["unready"].is_null());
    // It answered once: that AWS is not to be reached later takes no replica away.
    simulator.set_faults_of(eu(), failing(FailureKind::Reset));
    let request = DescribeInstanceInformationRequest {
        target: "needed".to_owned(),
        ..filtered(vec![filter("PingStatus", &["Online"])])
    };
    gateway.describe(request).await.unwrap_err();
    assert_eq!(get(gateway.admin, "/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_aws_takes_nobody_away_where_no_target_is_required() {
    let (gateway, simulator) = simulated(1).await;
    simulator.set_faults(failing(FailureKind::Reset));
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap_err();
    assert_eq!(get(gateway.admin, "/readyz").await, (200, "ok\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_going_away_is_not_ready() {
    let (gateway, _simulator) = simulated_with(1, |config| config.edge.drain_delay = Duration::from_hours(1)).await;
    gateway.stop();
    let why = until_code(gateway.admin, "/readyz", 503).await;
    assert!(why.contains("going away"), "{why}");
    assert_eq!(get(gateway.admin, "/livez").await.0, 200);
    assert_eq!(status(gateway.admin).await["stage"], "not_serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_told_no_more_than_probes_and_metrics() {
    let (gateway, _simulator) =
        simulated_with(1, |config| config.admin.listen = SocketAddr::from(([0, 0, 0, 0], 0))).await;
    let addr = SocketAddr::from(([127, 0, 0, 1], gateway.admin.port()));
    for (path, code) in
        [("/metrics", 200), ("/livez", 200), ("/readyz", 200), ("/status", 403), ("/config", 403), ("/", 403)]
    {
        let (found, body) = get(addr, path).await;
        assert_eq!(found, code, "{path}: {body}");
    }
    let (gateway, _simulator) = simulated(1).await;
    let host = async |host: &str| get_with(gateway.admin, "/status", &[("host", host)]).await;
    assert_eq!(host("localhost:9464").await.1.0, 200);
    assert_eq!(host("[::1]:9464").await.1.0, 200);
    assert_eq!(host("rebound.example.com:9464").await.1.0, 403, "a page of another site in a browser on this machine");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_opens_all_of_it_from_anywhere() {
    let (gateway, _simulator) = simulated_with(1, |config| {
        config.admin.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        config.admin.token_sha256 = Some(TokenHash::of("admin-secret"));
        config.auth.allow_plaintext_tokens = true;
    })
    .await;
    let addr = SocketAddr::from(([127, 0, 0, 1], gateway.admin.port()));
    let with = async |authorization: &str| {
        let headers = [("host", "gateway.internal"), ("authorization", authorization)];
        get_with(addr, "/status", &headers).await.1.0
    };
    assert_eq!(with("Bearer admin-secret").await, 200);
    // admin:admin-secret, as a browser sends it.
    assert_eq!(with("Basic YWRtaW46YWRtaW4tc2VjcmV0").await, 200);
    for wrong in ["Bearer wrong", "Basic YWRtaW46d3Jvbmc=", "Basic ????", "Bearer", ""] {
        assert_eq!(with(wrong).await, 401, "{wrong}");
    }
    let (head, _) = get_with(addr, "/", &[("host", "gateway.internal")]).await;
    assert!(head.contains("www-authenticate: bearer, basic"), "{head}");
    assert_eq!(get(addr, "/metrics").await.0, 200, "Prometheus needs none");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_people_and_programs_the_same() {
    let (gateway, simulator) = simulated_with(120, forget).await;
    gateway.describe(filtered(vec![filter("tag:<b>", &["x"])])).await.unwrap();
    simulator.set_faults(failing(FailureKind::AccessDenied));
    gateway.describe(DescribeInstanceInformationRequest::default()).await.unwrap_err();
    idle(gateway.admin).await;
    let status = status(gateway.admin).await;
    let target = &status["targets"][0];
    assert_eq!(
        (&target["name"], &target["state"], &target["is_default"]),
        (&"default".into(), &"denied".into(), &true.into())
    );
    assert_eq!(target["last_error"]["aws_error_code"], "AccessDeniedException");
    assert!(target["last_error"]["aws_request_id"].is_string());
    assert_eq!((&status["calls"]["ended"], &status["calls"]["failed"]), (&2.into(), &1.into()));
    let filters: Vec<&str> =
        status["listings"].as_array().unwrap().iter().map(|listing| listing["filters"].as_str().unwrap()).collect();
    assert!(filters.contains(&"tag:<b>=x"), "{filters:?}");
    let accept = [("host", "127.0.0.1"), ("accept", "text/html,*/*")];
    let (head, (code, page)) = get_with(gateway.admin, "/status", &accept).await;
    assert!(code == 200 && head.contains("content-type: text/html"), "{head}");
    for told in ["denied", "AccessDeniedException", "tag:&lt;b&gt;=x", "http-equiv=\"refresh\""] {
        assert!(page.contains(told), "{told} is not in {page}");
    }
    assert!(!page.contains("<script"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_told_without_secrets_and_as_it_is_after_a_reload() {
    let folder = Folder::new();
    let text = format!(
        "default_target = 'a'\n[auth]\nallow_anonymous = true\n[[auth.tokens]]\nname = 'ci'\nsha256 = '{}'\n\
         [[allow]]\nprincipal = '*'\n[upstream]\nexternal_id = 'external-secret'\n\
         endpoint_url = 'http://127.0.0.1:1'\n[targets.a]\nexternal_id = 'other-secret'\nregion = 'eu-west-1'\n\
         [admin]\ntoken_sha256 = '{}'\n",
        sha256("ci-secret"),
        sha256("admin-secret"),
    );
    let load = |text: String| {
        let file = folder.write("gateway.toml", text);
        ssm_gateway::config::Config::load(Some(&file), |config| {
            config.edge.listen = "127.0.0.1:0".parse().unwrap();
            config.admin.listen.set_port(0);
        })
        .unwrap()
    };
    let gateway = Gateway::plain(load(text.clone())).await;
    let told = async || {
        let headers = [("host", "127.0.0.1"), ("authorization", "Bearer admin-secret")];
        get_with(gateway.admin, "/config", &headers).await.1.1
    };
    let config = told().await;
    for secret in ["secret", &sha256("ci-secret"), &sha256("admin-secret")] {
        assert!(!config.contains(secret), "{config}");
    }
    let config: toml::Table = toml::from_str(&config).unwrap();
    assert_eq!(config["upstream"]["endpoint_url"].as_str(), Some("http://127.0.0.1:1"));
    assert_eq!(config["targets"]["a"]["region"].as_str(), Some("eu-west-1"));
    gateway.tell(Signal::Reload(Ok(Box::new(load(text.replace("eu-west-1", "eu-north-1"))))));
    within(async {
        while !told().await.contains("eu-north-1") {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_connections_and_asks_nothing_is_in_no_probes_way() {
    let (gateway, _simulator) = simulated(1).await;
    let silent = join_all((0..300).map(|_| TcpStream::connect(gateway.admin))).await;
    let silent: Vec<TcpStream> = silent.into_iter().map(Result::unwrap).collect();
    assert_eq!(get(gateway.admin, "/livez").await.0, 200);
    // It was accepted after them: those that were too many have been closed by then.
    let is_open =
        |stream: &&TcpStream| stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    let mut looks = 0;
    while silent.iter().filter(is_open).count() > 100 {
        looks += 1;
        assert!(looks < 100, "more than a hundred are open");
        time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_a_required_target_takes_nobody_away() {
    let simulator = simulator_of(1).await;
    let with = |ttl: u64| {
        let mut config = config(&simulator.url());
        let ttl = Some(Duration::from_secs(ttl));
        let needed = Target { region: Some("eu-west-1".to_owned()), required: true, ttl, ..Target::default() };
        config.targets.insert("needed".into(), needed);
        config
    };
    let gateway = Gateway::plain(with(1)).await;
    until_code(gateway.admin, "/readyz", 200).await;
    simulator.set_faults(failing(FailureKind::Reset));
    gateway.tell(Signal::Reload(Ok(Box::new(with(2)))));
    within(async {
        while !get(gateway.admin, "/config").await.1.contains("ttl = \"2s\"") {
            assert_eq!(get(gateway.admin, "/readyz").await.0, 200);
        }
    })
    .await;
    assert_eq!(get(gateway.admin, "/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_hangs_is_unavailable_before_its_fetch_has_failed() {
    let (gateway, simulator) = simulated_with(1, |config| {
        config.upstream.attempt_timeout = Duration::from_millis(100);
        config.upstream.retry_backoff = Duration::ZERO;
        config.upstream.retries = 1_000;
    })
    .await;
    simulator.set_faults(failing(FailureKind::Hang));
    let mut caller = gateway.client.clone();
    let hanging = caller.describe_instance_information(DescribeInstanceInformationRequest::default());
    let seen = async {
        while status(gateway.admin).await["targets"][0]["state"] != "unavailable" {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = within(seen) => {}
        answer = hanging => panic!("it hangs: {answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_caller_makes_the_status_large() {
    let (gateway, _simulator) = simulated(1).await;
    let values = "x".repeat(100_000);
    gateway.describe(filtered(vec![filter("IamRole", &[&values])])).await.unwrap();
    let (code, text) = get(gateway.admin, "/status").await;
    assert!(code == 200 && text.len() < 10_000, "{}", text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_leave_for_their_age_are_one_too_many_or_speak_no_tls_are_counted() {
    let (gateway, _simulator) = simulated_with(1, |config| {
        config.edge.max_connections = 1;
        config.edge.max_connection_age = Duration::from_millis(200);
    })
    .await;
    let certificates = Secured::new();
    let mut secured = config("http://127.0.0.1:1");
    certificates.configure(&mut secured);
    let secured =
        Gateway::serving(secured, async |addr| certificates.endpoint(addr.port(), None).connect().await).await;
    let until_counted = async |admin: SocketAddr, name: &str| {
        within(async {
            while metrics(admin).await[name] == 0.0 {
                let addr = if admin == gateway.admin { gateway.addr } else { secured.addr };
                let _refused = TcpStream::connect(addr).await.unwrap().write_all(b"no TLS, and no HTTP/2").await;
            }
        })
        .await;
    };
    until_counted(gateway.admin, "ssm_gateway_connections_refused_total").await;
    until_counted(gateway.admin, "ssm_gateway_connections_drained_total{reason=\"age\"}").await;
    until_counted(secured.admin, "ssm_gateway_tls_handshake_failures_total").await;
}
