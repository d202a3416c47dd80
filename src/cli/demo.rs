use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

use tokio::task::JoinSet;

use super::{
    client::Server,
    error::CliError,
    list::Client,
    output::{Format, Options, Output},
    signals::stop_signals,
};
use crate::{app::App, config::Config, edge::Address, proto::DescribeInstanceInformationRequest, simulator};

/// How many nodes are printed.
const ROWS: i32 = 5;

/// Run a gateway in front of a simulated SSM, in one process on loopback.
///
/// Prints calls to try and the first rows, and serves until Ctrl-C.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The port for gRPC; 0 selects a free port.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// The port for the status page and the metrics; 0 selects a free port.
    #[arg(long, default_value_t = 9464)]
    admin_port: u16,
    /// The number of simulated nodes.
    #[arg(long, default_value_t = 1237)]
    nodes: usize,
    /// The seed of the fleet: equal seeds make equal fleets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let simulated = simulator::Config { nodes: self.nodes, seed: self.seed, ..simulator::Config::default() };
        let listen = simulated.listen;
        let simulator = simulated.start().await.map_err(|error| CliError::Simulate(listen, error))?;

        let mut config = Config::default();
        config.edge.listen = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        config.admin.listen.set_port(self.admin_port);
        config.upstream.region = Some("us-east-1".to_owned());
        config.upstream.endpoint_url = Some(simulator.url());
        config.upstream.simulated_credentials = true;
        config.upstream.requests_per_second = 1000.0;
        config.log.filter = String::from("warn");
        let _log = config.log.start()?;
        let signals = stop_signals()?;
        let app = App::build(config).await.map_err(CliError::naming("--port", "--admin-port"))?;
        let addr = app.addr().clone();
        let admin = app.admin_addr();
        let mut serving = JoinSet::from_iter([app.serve(signals)]);

        let server = Server::at(&addr);
        let mut client = Client::new(server.connect().await?);
        introduce(&addr, admin, self.nodes, &simulator.url())?;
        first_rows(&server, &mut client).await?;
        drop(client);
        writeln!(io::stdout(), "\nServing until Ctrl-C.")?;
        // A panic in the server has already been logged.
        let _stopped = serving.join_next().await;
        Ok(())
    }
}

fn introduce(addr: &Address, admin: SocketAddr, nodes: usize, ssm: &str) -> io::Result<()> {
    let method = "ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";
    let request = r#"{"MaxResults":5,"Filters":[{"Key":"PingStatus","Values":["Online"]}]}"#;
    writeln!(
        io::stdout(),
        "gRPC on {addr}, in front of a simulated SSM with {nodes} nodes at {ssm}

Try, in another terminal:
  grpcurl -plaintext {addr} describe ssm_gateway.v1.InstanceInformationService
  grpcurl -plaintext -d '{request}' {addr} {method}
  ssm-gateway list --server http://{addr} --filter PlatformTypes=Windows
  ssm-gateway top --admin http://{admin}

The status page, for a browser: http://{admin}/

The first rows:"
    )
}

async fn first_rows(server: &Server, client: &mut Client) -> Result<(), CliError> {
    let request = DescribeInstanceInformationRequest { max_results: Some(ROWS), ..Default::default() };
    let answer = client.describe_instance_information(request).await.map_err(|status| server.failed(status))?;
    let mut output = Output::new(Format::Table, Options::default(), io::stdout().lock())?;
    for node in &answer.into_inner().instance_information_list {
        output.node("default", node)?;
    }
    output.finish(None)
}
