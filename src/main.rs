//! The program `ssm-gateway`.

use std::process::ExitCode;

use ssm_gateway::cli::Cli;

/// A call allocates some dozens of small things on one thread and frees them on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::from_command_line().run().await
}
