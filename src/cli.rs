//! The command line: a file a subcommand.

mod check;
mod demo;
mod list;
mod output;
mod serve;
mod simulate;
mod targets;

use std::{
    error::Error,
    io::{self, Write as _},
    iter,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{app::AppError, config::ConfigError, telemetry::TelemetryError};

/// Tells which machines AWS Systems Manager manages, and how they are, over gRPC.
///
/// `demo` shows it all in one process. `serve` is the gateway: callers speak to it in gRPC, it asks AWS for them; `check`
/// looks at its configuration. `list` and `targets` are callers. `simulate` is an SSM without AWS.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done in part: some targets could not be reached.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Simulate(simulate::Args),
    Demo(demo::Args),
    List(list::Args),
    Targets(targets::Args),
}

/// The exit code of a command that did what it could.
const PARTIAL: u8 = 3;

/// Why a command failed, in a sentence together with its sources.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("could not simulate SSM on {0}")]
    Simulate(std::net::SocketAddr, #[source] io::Error),
    #[error("could not wait for signals")]
    Signal(#[source] io::Error),
    #[error("{0:?} is not the address of a gateway, such as http://127.0.0.1:50051")]
    Server(String, #[source] tonic::transport::Error),
    #[error("{0}: gateways are spoken to without TLS yet, so give http:// or HOST:PORT")]
    Tls(String),
    #[error("could not reach a gateway at {0}")]
    Connect(String, #[source] tonic::transport::Error),
    #[error("the gateway answered {code:?}: {message}", code = .0.code(), message = .0.message())]
    Call(Box<tonic::Status>),
    #[error("the gateway did not answer in the time given")]
    Timeout,
    #[error("could not read the gateway's answer")]
    Answer(#[from] prost::DecodeError),
    #[error("the program's own contract is broken")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    #[error("the program's own contract has no InstanceInformation")]
    Contract,
    #[error("could not write the output")]
    Output(#[from] io::Error),
    #[error("{} could not be reached", .0.join(", "))]
    Unreachable(Vec<String>),
}

impl Cli {
    /// Runs the command to its end.
    pub async fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Serve(args) => args.run().await,
            Command::Simulate(args) => args.run().await,
            Command::Demo(args) => args.run().await,
            Command::List(args) => args.run().await,
            Command::Check(args) => args.run().await,
            Command::Targets(args) => args.run().await,
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever read the output has read enough.
            Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                let mut sentence = error.to_string();
                for source in iter::successors(error.source(), |&error| error.source()) {
                    let source = source.to_string();
                    if !sentence.contains(&source) {
                        sentence = format!("{sentence}: {source}");
                    }
                }
                // There is no one left to tell if this fails.
                let _unheard = writeln!(io::stderr(), "error: {sentence}");
                if matches!(error, CliError::Unreachable(_)) { ExitCode::from(PARTIAL) } else { ExitCode::FAILURE }
            }
        }
    }
}

/// Done when the process is told to stop, by Ctrl-C or SIGTERM.
fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Signal)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
