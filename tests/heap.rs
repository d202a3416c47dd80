//! What a large fleet takes of memory, by an allocator that counts; in a process of its own, where nothing else allocates.
//! The long form runs in release, by `cargo test --release -- --ignored`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that meets what it does not expect must fail, and this one reports what it measured"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use peak_alloc::PeakAlloc;
use prost::Message as _;
use ssm_gateway::{
    app::App,
    config::Config,
    edge::Address,
    proto::{
        StreamInstanceInformationRequest, StreamInstanceInformationResponse,
        instance_information_service_client::InstanceInformationServiceClient,
    },
};
use tokio::sync::Mutex;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// One measurement at a time.
static TURN: Mutex<()> = Mutex::const_new(());

const READERS: usize = 200;

/// The simulator, whose fleet must not count.
struct Simulator {
    url: String,
    child: Child,
}

impl Simulator {
    fn start(nodes: usize) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssm-gateway"));
        command.args(["simulate", "--listen", "127.0.0.1:0", "--nodes", &nodes.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { url: line.trim().split(" at ").nth(1).unwrap().to_owned(), child }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn gateway(endpoint: &str) -> SocketAddr {
    let mut config = Config::default();
    config.edge.listen = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.upstream.region = Some("us-east-1".to_owned());
    config.upstream.endpoint_url = Some(endpoint.to_owned());
    config.upstream.simulated_credentials = true;
    config.upstream.requests_per_second = 1e6;
    let app = App::build(config).await.unwrap();
    let Address::Tcp(addr) = *app.addr() else { panic!("it is a port") };
    tokio::spawn(app.serve(futures_util::stream::pending()));
    addr
}

/// A stream on a connection of its own, which takes little before it is read.
async fn open(addr: SocketAddr) -> Streaming<StreamInstanceInformationResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let endpoint = endpoint.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 16);
    let channel: Channel = endpoint.connect().await.unwrap();
    let mut client = InstanceInformationServiceClient::new(channel);
    client.stream_instance_information(StreamInstanceInformationRequest::default()).await.unwrap().into_inner()
}

/// The nodes of a stream, and the bytes that they have encoded.
async fn read(mut pages: Streaming<StreamInstanceInformationResponse>) -> (usize, usize) {
    let (mut nodes, mut encoded) = (0, 0);
    while let Some(StreamInstanceInformationResponse { instance_information_list, .. }) = pages.message().await.unwrap()
    {
        nodes += instance_information_list.len();
        encoded += StreamInstanceInformationResponse { instance_information_list, ..Default::default() }.encoded_len();
    }
    (nodes, encoded)
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: unknown").to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a heap are far below 2^52")]
async fn measure(nodes: usize) {
    let _turn = TURN.lock().await;
    let simulator = Simulator::start(nodes);
    let addr = gateway(&simulator.url).await;
    // Connections and the SDK are there before the count begins.
    drop(open(addr).await);
    let before = HEAP.current_usage();
    let (seen, encoded) = read(open(addr).await).await;
    assert_eq!(seen, nodes);
    let grown = HEAP.current_usage() - before;
    let share = grown as f64 / encoded as f64;
    println!("{nodes} nodes: {encoded} bytes encoded, live heap grew by {grown} ({share:.2} times), {}", resident());
    assert!(share <= 1.3, "{share}");

    let before = HEAP.current_usage();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut pages = open(addr).await;
        pages.message().await.unwrap().unwrap();
        readers.push(pages);
    }
    let each = (HEAP.current_usage() - before) / READERS;
    println!("{READERS} readers, their clients in the same process: {each} bytes each, {}", resident());
    assert!(each < 1 << 20, "{each}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_takes_little_more_than_its_encoded_bytes_and_a_reader_next_to_nothing() {
    measure(20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: in release"]
async fn long_a_hundred_thousand_nodes_take_little_more_than_their_encoded_bytes() {
    measure(100_000).await;
}
