#![allow(clippy::doc_markdown, reason = "help texts show no Markdown")]

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use futures_util::StreamExt as _;

use super::{error::CliError, signals::stop_signals};
use crate::simulator::{self, Failure, Faults};

/// Simulate SSM: a made-up fleet behind SSM's real wire protocol.
///
/// Any AWS client can call it: use the printed URL as the endpoint, with any region and any credentials. GET and PUT
/// /_simulator/faults read and set its faults while it runs; GET /_simulator/stats returns call statistics.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// The number of nodes in each fleet.
    #[arg(long, default_value_t = 1237)]
    nodes: usize,
    /// The seed of the fleets: equal seeds make equal fleets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long a NextToken is valid.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// The delay of every answer.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Make calls fail, all or a share from 0 to 1; may be repeated. KIND is one of throttling, internal_error,
    /// html, html_ok, malformed_json, reset, cut, hang, access_denied, expired_credentials.
    #[arg(long, value_name = "KIND[:SHARE]")]
    fail: Vec<Failure>,
    /// Make every N-th page of a walk empty, but with a token; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    empty_every: u32,
    /// Return the token of the request as the next token.
    #[arg(long)]
    repeat_token: bool,
    /// Reject every token as expired.
    #[arg(long)]
    expire_tokens: bool,
    /// Add members that AWS's model does not have.
    #[arg(long)]
    unknown_members: bool,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Self { listen, nodes, seed, token_lifetime, latency, .. } = self;
        let faults = Faults {
            latency,
            failures: self.fail,
            empty_every: self.empty_every,
            repeat_token: self.repeat_token,
            expire_tokens: self.expire_tokens,
            unknown_members: self.unknown_members,
            ..Faults::default()
        };
        let mut stops = Box::pin(stop_signals()?);
        let config = simulator::Config { listen, nodes, seed, token_lifetime, faults, ..simulator::Config::default() };
        let simulator = config.start().await.map_err(|error| CliError::Simulate(listen, error))?;
        writeln!(io::stdout(), "simulating SSM with {nodes} nodes at {}", simulator.url())?;
        stops.next().await;
        Ok(())
    }
}
