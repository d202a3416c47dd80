//! Envoy in front of two replicas, by `deploy/envoy.yaml`.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use ssm_gateway::{
    config::Config,
    proto::{
        DescribeInstanceInformationRequest, InstanceInformation, StreamInstanceInformationRequest,
        instance_information_service_client::InstanceInformationServiceClient,
    },
    simulator::{FailureKind, Simulator},
};
use tokio::time;
use tonic::{Code, Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    proofs::{Folder, Secured, allow, token},
    status::patient,
    support::{
        self, Gateway, Running, config, failing, filter, filtered, forget, messages, root, simulator_of, tool, until,
        within,
    },
};

/// A running Envoy; dropping it ends it.
struct Envoy {
    addr: SocketAddr,
    admin: SocketAddr,
    _child: Running,
}

impl Envoy {
    /// In front of these gateways, once it takes both for healthy.
    async fn before(secured: &Secured, gateways: [&Gateway; 2]) -> Self {
        let folder = Folder::new();
        let config = fs::read_to_string(root().join("deploy/envoy.yaml")).unwrap();
        let config = config.replace("address: ssm-gateway.ssm-gateway.svc", "address: 127.0.0.1");
        let config = config.replace("ssm-gateway.ssm-gateway.svc", "localhost");
        let config = config.replace("/etc/envoy/ca.crt", &secured.folder.path("ca.pem").display().to_string());
        let (head, endpoint) = config.split_once("- endpoint:").unwrap();
        let endpoints = gateways.map(|gateway| {
            let port = gateway.addr.port().to_string();
            format!("- endpoint:{}", endpoint.replace("50051", &port))
        });
        let config = format!("{head}{}              {}", endpoints[0], endpoints[1]);
        let config = config.replace("port_value: 9901", "port_value: 0").replace("port_value: 10000", "port_value: 0");
        let (config, told) = (folder.write("envoy.yaml", config), folder.path("admin"));
        let mut command = Command::new(tool("venv/bin/envoy"));
        command
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--config-path"])
            .arg(config);
        command.arg("--admin-address-path").arg(&told).stdin(Stdio::null());
        let child = Running(command.spawn().unwrap());
        let addr = || fs::read_to_string(&told).ok().and_then(|addr| addr.parse::<SocketAddr>().ok());
        until(|| addr().is_some()).await;
        let mut envoy = Self { addr: SocketAddr::from(([127, 0, 0, 1], 0)), admin: addr().unwrap(), _child: child };
        envoy.until_healthy(2).await;
        envoy.addr = envoy.ask("/listeners").await.trim().strip_prefix("grpc::").unwrap().parse().unwrap();
        envoy
    }

    /// What its admin address answers.
    async fn ask(&self, path: &str) -> String {
        let http = HttpClient::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let answer = within(http.get(format!("http://{}{path}", self.admin).parse().unwrap())).await.unwrap();
        let body = within(answer.into_body().collect()).await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Waits until it takes so many replicas for healthy.
    async fn until_healthy(&self, count: usize) {
        within(async {
            while self.ask("/clusters").await.matches("health_flags::healthy").count() != count {
                time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// What it counted of this.
    async fn counted(&self, name: &str) -> u64 {
        let stats = self.ask(&format!("/stats?filter={name}")).await;
        stats.lines().map(|line| line.rsplit_once(": ").unwrap().1.parse::<u64>().unwrap()).sum()
    }

    async fn caller(&self) -> Caller {
        let channel = Channel::from_shared(format!("http://{}", self.addr)).unwrap().connect().await.unwrap();
        Caller::new(InterceptedService::new(channel, with_token))
    }
}

/// A client that proves who calls.
type Caller =
    InstanceInformationServiceClient<InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>>;

#[allow(clippy::unnecessary_wraps, reason = "an interceptor")]
fn with_token(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("authorization", "Bearer orders-secret".parse().unwrap());
    Ok(request)
}

/// A gateway that speaks TLS, and knows callers by their token.
async fn gateway(secured: &Secured, simulator: &Simulator, configure: impl FnOnce(&mut Config)) -> Gateway {
    let mut config = config(&simulator.url());
    secured.configure(&mut config);
    config.auth.tokens = vec![token("orders")];
    config.allow = vec![allow("token:orders", &[], &[])];
    configure(&mut config);
    Gateway::serving(config, async |addr| secured.endpoint(addr.port(), None).connect().await).await
}

/// All nodes, by unary calls.
async fn walk(client: &mut Caller) -> Vec<InstanceInformation> {
    let request = DescribeInstanceInformationRequest { max_results: Some(50), ..Default::default() };
    support::walk(request, async |request| {
        within(client.describe_instance_information(request)).await.map(Response::into_inner)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_passes_pages_streams_errors_and_deadlines() {
    let (secured, simulator) = (Secured::new(), simulator_of(1237).await);
    let [one, other] = [gateway(&secured, &simulator, forget).await, gateway(&secured, &simulator, forget).await];
    let envoy = Envoy::before(&secured, [&one, &other]).await;
    let mut client = envoy.caller().await;
    let direct = Gateway::at(&simulator.url(), |_| {}).await;
    let fleet = direct.walk(DescribeInstanceInformationRequest::default()).await;
    assert_eq!(walk(&mut client).await, fleet);
    let hosts = envoy.ask("/clusters").await;
    assert!([&one, &other].iter().all(|gateway| !hosts.contains(&format!("{}::rq_success::0\n", gateway.addr))));

    let answer = within(client.stream_instance_information(StreamInstanceInformationRequest::default())).await;
    let pages = messages(answer.unwrap().into_inner()).await.unwrap();
    let streamed: Vec<_> = pages.into_iter().flat_map(|page| page.instance_information_list).collect();
    assert_eq!(streamed, fleet);

    let color = filtered(vec![filter("Color", &["red"])]);
    let status = within(client.describe_instance_information(color)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "UnknownKey filter Key is invalid."));
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "VALIDATION");
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "filters");

    simulator.set_faults(failing(FailureKind::Hang));
    let mut request = with_token(Request::new(())).unwrap().map(|()| DescribeInstanceInformationRequest::default());
    request.metadata_mut().insert("grpc-timeout", "150m".parse().unwrap());
    let status = within(patient(envoy.addr).describe_instance_information(request)).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"), "told by the gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_retries_what_one_replica_turns_away_and_leaves_one_that_drains() {
    let (secured, hanging, simulator) = (Secured::new(), simulator_of(5).await, simulator_of(1237).await);
    hanging.set_faults(failing(FailureKind::Hang));
    let full = gateway(&secured, &hanging, |config| config.limits.max_calls = 1).await;
    let other = gateway(&secured, &simulator, |_| {}).await;
    let (mut caller, request) = (full.client.clone(), with_token(Request::new(())).unwrap());
    let call =
        tokio::spawn(async move { caller.describe_instance_information(request.map(|()| filtered(vec![]))).await });
    until(|| full.limits.calls() == 1).await;

    let envoy = Envoy::before(&secured, [&full, &other]).await;
    let mut client = envoy.caller().await;
    assert_eq!(walk(&mut client).await.len(), 1237);
    assert!(envoy.counted("upstream_rq_retry_success").await > 0);

    call.abort();
    full.stop();
    envoy.until_healthy(1).await;
    full.stopped().await;
    assert_eq!(walk(&mut client).await.len(), 1237);
}
