//! The command line, one file per subcommand.

mod admin;
mod check;
mod client;
mod demo;
mod diagnosis;
mod filter;
mod gateway;
mod health;
mod list;
mod output;
mod proto;
mod serve;
mod settings;
mod simulate;
mod targets;
mod terminal;
mod top;
mod usage;

use std::{
    env,
    error::Error,
    ffi::OsStr,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};

use self::{gateway::Gateway, terminal::harmless};
use crate::{
    app::{AppError, Signal},
    config::ConfigError,
    display::ErrorChain,
    edge::ListenError,
    pem::InvalidPem,
    telemetry::{LogError, TraceError},
};

/// Reports over gRPC which machines AWS Systems Manager manages, and their state.
///
/// `serve` runs the gateway, which answers gRPC calls and asks AWS for the data; `check` validates its configuration. `demo`
/// runs a gateway and a simulated SSM in one process. `list`, `targets` and `health` call a running gateway; `top` watches one.
/// `simulate` runs an SSM without AWS. `proto` writes the contract, for other clients.
///
/// Exit codes: 0 success, 1 failure, 2 wrong usage, 3 partial success: some targets could not be reached.
///
/// The help of each command names the environment variables of its options. An empty variable counts as unset.
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
    Health(health::Args),
    Top(top::Args),
    Proto(proto::Args),
}

/// The exit code of a command that could not reach some targets.
const PARTIAL: u8 = 3;

/// Why a command failed. Its message and those of its sources make one sentence.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("cannot bind the address that {0} sets")]
    Bind(&'static str, #[source] AppError),
    #[error("cannot bind the address that --listen sets: could not simulate SSM on {0}")]
    Simulate(std::net::SocketAddr, #[source] io::Error),
    #[error("could not register the signal handlers")]
    Signal(#[source] io::Error),
    #[error("{0} is a plaintext address: use https://…, or omit --tls-ca, --cert and --key")]
    NotTls(Gateway),
    #[error("cannot load the TLS files of --tls-ca, --cert and --key")]
    Tls(#[source] tonic::transport::Error),
    #[error("{0} is a plaintext address, where others could read the token: use https://…")]
    PlaintextToken(Gateway),
    #[error("could not read the file that {0} names")]
    File(&'static str, #[source] io::Error),
    #[error("{} cannot be used", .0.display())]
    Pem(PathBuf, #[source] InvalidPem),
    #[error("{} contains no bearer token: a token is one word of visible ASCII", .0.display())]
    Token(PathBuf),
    #[error("could not reach a gateway at {0}: {1}")]
    Connect(Gateway, String),
    #[error("the gateway answered {code:?}: {message}", code = .0.code(), message = harmless(.0.message()))]
    Call(Box<tonic::Status>),
    #[error("the connection to the gateway broke: {0}")]
    Broken(String),
    #[error("cannot read the gateway's status at {0}")]
    Admin(http::uri::Authority, #[source] Box<dyn Error + Send + Sync>),
    #[error("{0} is another machine, and others could read the token on its way: forward a local port to it instead")]
    PlaintextAdminToken(http::uri::Authority),
    #[error("the gateway did not answer in time")]
    Timeout,
    #[error("could not read the gateway's answer")]
    Answer(#[from] prost::DecodeError),
    #[error("the contract in this program is malformed")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    #[error("the contract in this program has no InstanceInformation")]
    Contract,
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("could not write the output")]
    Output(#[from] io::Error),
    #[error("{} could not be reached", .0.join(", "))]
    Unreachable(Vec<String>),
    #[error("the gateway reports {0}")]
    NotServing(String),
}

impl CliError {
    /// Converts an error of `App::build`. If an address cannot be bound, the error names the flag that sets it.
    fn naming(listen: &'static str, admin_listen: &'static str) -> impl FnOnce(AppError) -> Self {
        move |error| match error {
            AppError::Listen(ListenError::Bind(..)) => Self::Bind(listen, error),
            AppError::Admin(_) => Self::Bind(admin_listen, error),
            error => Self::App(error),
        }
    }
}

impl Cli {
    /// Parses the command line and the environment of the process. Prints an error and exits if they are invalid.
    #[must_use]
    pub fn from_command_line() -> Self {
        let mut command =
            without_variables(Self::command(), |name| env::var_os(name).is_some_and(|value| value.is_empty()));
        let words: Vec<_> = env::args_os().collect();
        let parsed = command.try_get_matches_from_mut(&words).and_then(|matches| Self::from_arg_matches(&matches));
        parsed.unwrap_or_else(|error| usage::without_secret(error.format(&mut command), &mut command, &words).exit())
    }

    /// Runs the command, and prints its error.
    pub async fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Serve(args) => Box::pin(args.run()).await,
            Command::Simulate(args) => args.run().await,
            Command::Demo(args) => args.run().await,
            Command::List(args) => args.run().await,
            Command::Check(args) => args.run().await,
            Command::Targets(args) => args.run().await,
            Command::Health(args) => args.run().await,
            Command::Top(args) => args.run().await,
            Command::Proto(args) => args.run(),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // The reader of the output has closed it, as `head` does: not an error.
            Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                // Nothing is left to report to if standard error fails.
                let _unwritten = writeln!(io::stderr(), "error: {}", ErrorChain(&error));
                if matches!(error, CliError::Unreachable(_)) { ExitCode::from(PARTIAL) } else { ExitCode::FAILURE }
            }
        }
    }
}

/// Removes from every option its variable if `is_unset` says so: clap would parse an empty variable as an empty value.
fn without_variables(command: clap::Command, is_unset: fn(&OsStr) -> bool) -> clap::Command {
    let command =
        command.mut_args(|arg| if arg.get_env().is_some_and(is_unset) { arg.env(Resettable::Reset) } else { arg });
    command.mut_subcommands(|subcommand| without_variables(subcommand, is_unset))
}

/// Returns a stream of the requests to stop: Ctrl-C or SIGTERM.
fn stop_signals() -> Result<impl Stream<Item = Signal>, CliError> {
    let both = stream::select(signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    Ok(both.map(|()| Signal::Stop))
}

/// Returns a stream of all signals of this kind from now on.
fn signals(kind: SignalKind) -> Result<impl Stream<Item = ()>, CliError> {
    let signals = signal(kind).map_err(CliError::Signal)?;
    Ok(stream::unfold(signals, async |mut signals| signals.recv().await.map(|()| ((), signals))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every option that has a variable, as `command SSM_GATEWAY_NAME`.
    fn variables(command: &clap::Command) -> Vec<String> {
        let of = |command: &clap::Command| {
            let names = command.get_arguments().filter_map(clap::Arg::get_env);
            names.map(|name| format!("{} {}", command.get_name(), name.display())).collect::<Vec<_>>()
        };
        command.get_subcommands().flat_map(of).collect()
    }

    #[test]
    fn every_variable_that_is_empty_is_unset_on_every_command() {
        let all = variables(&Cli::command());
        assert!(all.len() > 30 && all.iter().all(|variable| variable.contains(" SSM_GATEWAY_")), "{all:?}");
        assert_eq!(variables(&without_variables(Cli::command(), |_| true)), [""; 0]);
        assert_eq!(variables(&without_variables(Cli::command(), |_| false)), all);
        let mut others = all.clone();
        others.retain(|variable| !variable.ends_with(" SSM_GATEWAY_REGION"));
        assert_eq!(variables(&without_variables(Cli::command(), |name| name == "SSM_GATEWAY_REGION")), others);
        let of = |command: &str| all.iter().filter_map(|all| all.strip_prefix(command)).collect::<Vec<_>>();
        assert_eq!(of("serve "), of("check "));
    }

    #[test]
    fn an_option_that_is_given_empty_is_wrong_usage() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
                let flag = format!("--{}=", arg.get_long().unwrap_or_default());
                let parsed = Cli::try_parse_from(["ssm-gateway", command.get_name(), &flag]);
                assert!(parsed.is_err(), "{} {flag}", command.get_name());
            }
        }
    }
}
