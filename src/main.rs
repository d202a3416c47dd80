//! The program `ssm-gateway`.

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use ssm_gateway::cli::Cli;

/// mimalloc, because glibc's malloc costs a twentieth of a call more: a call makes some dozens of small allocations on
/// one thread and frees them on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // If this fails, only the SDK sees empty variables: the gateway itself ignores them.
    let _failed = unset_empty_variables();
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    Cli::from_command_line().run().await
}

/// Re-executes the program without those variables of AWS that are empty, if there are any. The SDK considers such a
/// variable set and panics at an empty endpoint. The alternative, removing a variable from the running process, is
/// `unsafe`.
fn unset_empty_variables() -> io::Result<()> {
    let is_empty = |name: &str, value: &str| name.starts_with("AWS_") && value.trim().is_empty();
    let empty = env::vars_os().filter(|(name, value)| is_empty(&name.to_string_lossy(), &value.to_string_lossy()));
    let empty: Vec<_> = empty.map(|(name, _)| name).collect();
    if empty.is_empty() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut program = Command::new(env::current_exe()?);
    program.arg0(arguments.next().unwrap_or_default()).args(arguments);
    for name in empty {
        program.env_remove(name);
    }
    Err(program.exec())
}
