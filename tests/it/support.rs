//! A gateway over a simulator, both running, and what to ask it.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use futures_util::stream;
use ssm_gateway::{
    app::{App, Signal},
    config::Config,
    edge::{Address, LimitsLayer},
    proto::{
        DescribeInstanceInformationRequest, DescribeInstanceInformationResponse, InstanceInformation,
        InstanceInformationStringFilter, StreamInstanceInformationRequest, StreamInstanceInformationResponse,
        instance_information_service_client::InstanceInformationServiceClient,
    },
    read::Listings,
    simulator::{self, Failure, FailureKind, Faults, Simulator},
};
use tokio::{sync::mpsc, task::JoinHandle, time};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// The longest that a test waits for anything; far longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) type Client = InstanceInformationServiceClient<Channel>;

/// A running gateway; dropping it stops it at once.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) client: Client,
    pub(crate) listings: Listings,
    pub(crate) limits: LimitsLayer,
    signals: mpsc::UnboundedSender<Signal>,
    serving: JoinHandle<()>,
}

impl Gateway {
    /// In front of `endpoint`, with quick retries and what `configure` changes.
    pub(crate) async fn at(endpoint: &str, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(endpoint);
        configure(&mut config);
        Self::plain(config).await
    }

    /// With this configuration, and a client without TLS.
    pub(crate) async fn plain(config: Config) -> Self {
        Self::serving(config, async |addr| Channel::from_shared(format!("http://{addr}")).unwrap().connect().await)
            .await
    }

    /// With this configuration, on a Unix socket at this path.
    pub(crate) async fn on_unix_socket(mut config: Config, path: &Path) -> Self {
        config.edge.listen = Address::Unix(path.to_owned());
        let url = format!("unix:{}", path.display());
        Self::serving(config, async |_| Endpoint::from_shared(url).unwrap().connect().await).await
    }

    /// With this configuration, and a client over the channel that `connect` opens.
    pub(crate) async fn serving(
        config: Config,
        connect: impl AsyncFnOnce(SocketAddr) -> Result<Channel, tonic::transport::Error>,
    ) -> Self {
        let app = App::build(config).await.unwrap();
        let addr = match app.addr() {
            Address::Tcp(addr) => *addr,
            Address::Unix(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let admin = app.admin_addr();
        let (listings, limits) = (app.listings().clone(), app.limits().clone());
        let (signals, mut sent) = mpsc::unbounded_channel();
        let serving = tokio::spawn(app.serve(stream::poll_fn(move |cx| sent.poll_recv(cx))));
        let client = Client::new(connect(addr).await.unwrap()).max_decoding_message_size(usize::MAX);
        Self { addr, admin, client, listings, limits, signals, serving }
    }

    /// A connection of its own, without TLS.
    pub(crate) async fn channel(&self) -> Channel {
        within(Channel::from_shared(format!("http://{}", self.addr)).unwrap().connect()).await.unwrap()
    }

    /// One page.
    pub(crate) async fn describe(
        &self,
        request: DescribeInstanceInformationRequest,
    ) -> Result<DescribeInstanceInformationResponse, Status> {
        within(self.client.clone().describe_instance_information(request)).await.map(tonic::Response::into_inner)
    }

    /// All messages of a stream.
    pub(crate) async fn stream(
        &self,
        request: StreamInstanceInformationRequest,
    ) -> Result<Vec<StreamInstanceInformationResponse>, Status> {
        messages(within(self.client.clone().stream_instance_information(request)).await?.into_inner()).await
    }

    /// All nodes, by unary calls.
    pub(crate) async fn walk(&self, request: DescribeInstanceInformationRequest) -> Vec<InstanceInformation> {
        walk(request, async |request| self.describe(request).await).await
    }

    /// Tells it to stop, as a signal would; await [`Gateway::stopped`] for the end.
    pub(crate) fn stop(&self) {
        self.tell(Signal::Stop);
    }

    pub(crate) fn tell(&self, signal: Signal) {
        self.signals.send(signal).unwrap();
    }

    /// Waits until it has drained.
    pub(crate) async fn stopped(mut self) {
        within(&mut self.serving).await.unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// All messages of a stream.
pub(crate) async fn messages(
    mut stream: Streaming<StreamInstanceInformationResponse>,
) -> Result<Vec<StreamInstanceInformationResponse>, Status> {
    let mut all = Vec::new();
    while let Some(page) = within(stream.message()).await? {
        all.push(page);
    }
    Ok(all)
}

/// All nodes, by unary calls.
pub(crate) async fn walk(
    mut request: DescribeInstanceInformationRequest,
    mut describe: impl AsyncFnMut(DescribeInstanceInformationRequest) -> Result<DescribeInstanceInformationResponse, Status>,
) -> Vec<InstanceInformation> {
    let mut nodes = Vec::new();
    loop {
        let answer = describe(request.clone()).await.unwrap();
        nodes.extend(answer.instance_information_list);
        match answer.next_token {
            None => return nodes,
            token => request.next_token = token,
        }
    }
}

/// In front of `endpoint`, on a free port of loopback, with quick retries.
pub(crate) fn config(endpoint: &str) -> Config {
    let mut config = Config::default();
    config.edge.listen = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.admin.listen.set_port(0);
    config.upstream.region = Some("us-east-1".to_owned());
    config.upstream.endpoint_url = Some(endpoint.to_owned());
    config.upstream.simulated_credentials = true;
    config.upstream.requests_per_second = 1e6;
    config.upstream.retry_backoff = Duration::from_millis(1);
    config
}

/// A simulator with `nodes` nodes.
pub(crate) async fn simulator_of(nodes: usize) -> Simulator {
    simulator::Config { nodes, ..simulator::Config::default() }.start().await.unwrap()
}

/// A gateway in front of a simulator with `nodes` nodes.
pub(crate) async fn simulated(nodes: usize) -> (Gateway, Simulator) {
    simulated_with(nodes, |_| {}).await
}

/// The same, configured.
pub(crate) async fn simulated_with(nodes: usize, configure: impl FnOnce(&mut Config)) -> (Gateway, Simulator) {
    let simulator = simulator_of(nodes).await;
    (Gateway::at(&simulator.url(), configure).await, simulator)
}

/// A gateway that asks the simulator anew for every call, and after every failure without advice.
pub(crate) async fn forgetful(nodes: usize) -> (Gateway, Simulator) {
    simulated_with(nodes, forget).await
}

pub(crate) fn forget(config: &mut Config) {
    let listing = &mut config.listing;
    (listing.ttl, listing.negative_ttl) = (Duration::ZERO, Duration::ZERO);
    (listing.hold_off, listing.max_hold_off) = (Duration::ZERO, Duration::ZERO);
}

/// How many pages its targets were asked for; retries of one page are one.
pub(crate) fn fetches(listings: &Listings) -> u64 {
    listings
        .targets()
        .flat_map(|target| target.metrics().fetches())
        .map(|(_, fetches)| fetches.get_sample_count())
        .sum()
}

/// Every call fails so.
pub(crate) fn failing(kind: FailureKind) -> Faults {
    failing_as(Failure::always(kind))
}

pub(crate) fn failing_as(failure: Failure) -> Faults {
    Faults { failures: vec![failure], ..Faults::default() }
}

/// An error of AWS's with this code.
pub(crate) fn aws_error(status: u16, code: &str, message: Option<&str>) -> FailureKind {
    FailureKind::Error { status, code: code.to_owned(), message: message.map(str::to_owned) }
}

pub(crate) fn filter(key: &str, values: &[&str]) -> InstanceInformationStringFilter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    InstanceInformationStringFilter { key: Some(key.to_owned()), values }
}

/// A request with these filters.
pub(crate) fn filtered(filters: Vec<InstanceInformationStringFilter>) -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest { filters, ..Default::default() }
}

/// Waits until this is so.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Awaits what must come.
pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    time::timeout(PATIENCE, what).await.expect("it takes too long")
}

/// A program that runs; dropping it ends it.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A tool that `scripts/tools` installs.
pub(crate) fn tool(path: &str) -> PathBuf {
    let tool = root().join(".tools").join(path);
    assert!(tool.exists(), "{} is missing: run scripts/test, which installs it", tool.display());
    tool
}

/// Runs a program to its end, and gives what it printed; its failure is the test's.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{stdout}\n{stderr}");
    stdout.into_owned()
}
