//! What people type at the commands, and what they read.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use clap::CommandFactory as _;
use ssm_gateway::cli::Cli;

use crate::{
    program::SSM_GATEWAY,
    proofs::Folder,
    support::{Running, run, simulated},
};

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
                // A gateway of somebody else's may run at the default address, and tells how long it is up.
                let stdout = if command.get_name() == "check" { output.stdout.clone() } else { Vec::new() };
                (output.status.code(), stderr(&output), String::from_utf8(stdout).unwrap())
            };
            let (empty, unset) = (run(true), run(false));
            assert_ne!(unset.0, Some(2), "{unset:?}");
            assert_eq!(empty, unset, "{} {variable}=", command.get_name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_ends_with_0_where_the_gateway_serves_whatever_becomes_of_its_output() {
    let (gateway, _simulator) = simulated(1).await;
    for output in [">/dev/full", ">&-", ">/dev/full 2>&1"] {
        for address in [format!("--server {}", gateway.addr), format!("--admin http://{}", gateway.admin)] {
            let health = format!("{SSM_GATEWAY} health {address} {output}; echo $? >&2");
            let output = Command::new("sh").args(["-c", &health]).output().unwrap();
            assert_eq!(stderr(&output), "0\n", "{health}");
        }
    }
}

#[test]
fn an_address_that_another_process_has_is_refused_by_the_flag_that_sets_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, port) = (taken.local_addr().unwrap().to_string(), taken.local_addr().unwrap().port().to_string());
    for (arguments, names) in [
        (
            &["serve", "--region", "eu-west-1", "--admin-listen", "127.0.0.1:0", "--listen", &addr][..],
            "--listen (listen in [edge])",
        ),
        (
            &["serve", "--region", "eu-west-1", "--listen", "127.0.0.1:0", "--admin-listen", &addr],
            "--admin-listen (listen in [admin])",
        ),
        (&["demo", "--admin-port", "0", "--port", &port], "--port"),
        (&["demo", "--port", "0", "--admin-port", &port], "--admin-port"),
        (&["simulate", "--listen", &addr], "--listen"),
    ] {
        let output = Command::new(SSM_GATEWAY).args(arguments).output().unwrap();
        let (stderr, begin) =
            (stderr(&output), format!("error: cannot bind the address that {names} sets: could not "));
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with(&begin) && stderr.contains(&addr), "{stderr}");
        assert!(stderr.contains("Address already in use"), "{stderr}");
    }
}

#[test]
fn a_hang_up_while_the_process_starts_is_a_reload_and_not_its_end() {
    let folder = Folder::new();
    let fifo = folder.path("gateway.toml");
    run(Command::new("mkfifo").arg(&fifo));
    let config = "edge.listen = '127.0.0.1:0'\nadmin.listen = '127.0.0.1:0'\nupstream.region = 'eu-west-1'\n";
    let mut child = Command::new(SSM_GATEWAY);
    child.args(["serve", "--config"]).arg(&fifo).stderr(Stdio::piped());
    let mut child = Running(child.spawn().unwrap());
    // Whoever opens a FIFO to write waits for its reader: the process reads its configuration now.
    let mut first = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    run(Command::new("kill").args(["-HUP", &child.0.id().to_string()]));
    first.write_all(config.as_bytes()).unwrap();
    drop(first);
    let mut log = BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("listening")), "it ended");
    std::fs::write(&fifo, config).unwrap();
    assert!(log.any(|line| line.contains("the configuration is in use")), "it ended");
}

#[test]
fn a_stop_while_the_process_starts_ends_it_at_once_and_well() {
    // Instance metadata that is asked for the region, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let file = folder.write("gateway.toml", "[edge]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n");
    for signal in ["-TERM", "-INT"] {
        let mut child = Command::new(SSM_GATEWAY);
        child.args(["serve", "--config"]).arg(&file).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        child.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()));
        child.envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")]);
        let mut child = Running(child.stderr(Stdio::piped()).spawn().unwrap());
        let _asked = silent.accept().unwrap();
        run(Command::new("kill").args([signal, &child.0.id().to_string()]));
        let mut log = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(log.contains("stopped before the gateway was serving"), "{log}");
        assert!(child.0.wait().unwrap().success(), "{log}");
    }
}
