#![allow(clippy::doc_markdown, reason = "help texts show no Markdown")]

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use futures_util::StreamExt as _;

use super::{CliError, stop_signals};
use crate::simulator::{self, Failure, Faults};

/// Simulate SSM: a made-up fleet behind SSM's real wire protocol.
///
/// Any AWS client can ask it: give it the URL that is printed as its endpoint, any region and any credentials. It can be
/// steered while it runs: GET and PUT /_simulator/faults, GET /_simulator/stats.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// How many nodes there are.
    #[arg(long, default_value_t = 1237)]
    nodes: usize,
    /// What the fleet is made from: equal seeds make equal fleets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long a NextToken may be used.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// How long every answer takes.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Let calls fail, all or a share of them from 0 to 1; may be repeated. KIND is one of throttling, internal_error,
    /// html, html_ok, malformed_json, reset, cut, hang, access_denied, expired_credentials.
    #[arg(long, value_name = "KIND[:SHARE]")]
    fail: Vec<Failure>,
    /// Let every N-th page of a walk be empty, with a token all the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    empty_every: u32,
    /// Answer the token that was asked with.
    #[arg(long)]
    repeat_token: bool,
    /// Take every token for expired.
    #[arg(long)]
    expire_tokens: bool,
    /// Add members that no model knows.
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
