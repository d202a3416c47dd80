//! The program `ssm-gateway`.

use std::process::ExitCode;

use clap::Parser as _;
use ssm_gateway::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
