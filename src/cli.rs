//! The command line, one file per subcommand.

mod admin;
mod check;
mod client;
mod demo;
mod diagnosis;
mod error;
mod filter;
mod gateway;
mod health;
mod list;
mod output;
mod proto;
mod serve;
mod settings;
mod signals;
mod simulate;
mod targets;
mod terminal;
mod top;
mod usage;

use std::{
    env,
    ffi::OsStr,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

use self::error::CliError;
use crate::display::ErrorChain;

/// Reports over gRPC which machines AWS Systems Manager manages, and their state.
///
/// `serve` runs the gateway, which answers gRPC calls and asks AWS for the data; `check` validates its configuration.
/// `demo` runs a gateway and a simulated SSM in one process. `list`, `targets` and `health` call a running gateway;
/// `top` watches one. `simulate` runs an SSM without AWS. `proto` writes the contract, for other clients.
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
