//! What people type at the commands, and what they read.

use std::process::{Command, Output};

use clap::CommandFactory as _;
use ssm_gateway::cli::Cli;

use crate::{program::SSM_GATEWAY, proofs::Folder};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_variable_that_is_empty_changes_nothing() {
    let folder = Folder::new();
    let keys = "edge.listen = '127.0.0.1:0'\nadmin.listen = '127.0.0.1:0'\nupstream.region = 'eu-west-1'\n\
                auth.allow_anonymous = true\ntrace.endpoint = 'http://127.0.0.1:1'\nlog.filter = 'warn'\n";
    let file = folder.write("gateway.toml", keys);
    // What `check` reads is what `serve` reads; a test of the command line holds the one against the other.
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "serve") {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        for variable in variables.map(|variable| variable.to_str().unwrap()) {
            let run = |is_set: bool| {
                let mut program = Command::new(SSM_GATEWAY);
                program.arg(command.get_name()).env("AWS_REGION", "us-east-1").env_remove(variable);
                match command.get_name() {
                    "check" if variable == "SSM_GATEWAY_CONFIG" => {}
                    "check" => drop(program.arg("--config").arg(&file)),
                    "top" if variable == "SSM_GATEWAY_ADMIN" => {}
                    "top" => drop(program.args(["--admin", "http://127.0.0.1:1"])),
                    _ if variable == "SSM_GATEWAY_SERVER" => {}
                    _ => drop(program.args(["--server", "http://127.0.0.1:1"])),
                }
                let output = program.envs(is_set.then_some((variable, ""))).output().unwrap();
                (output.status.code(), stderr(&output), String::from_utf8(output.stdout).unwrap())
            };
            let (empty, unset) = (run(true), run(false));
            assert_ne!(unset.0, Some(2), "{unset:?}");
            assert_eq!(empty, unset, "{} {variable}=", command.get_name());
        }
    }
}
