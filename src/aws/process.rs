//! Credentials that a command prints, as `credential_process` in AWS's files names it. Not the SDK's own: that one
//! leaves a command running which takes too long, and repeats in its errors what the command wrote to standard error.

use std::{io, process::Stdio, time::Duration};

use aws_credential_types::Credentials;
use aws_sdk_ssm::primitives::{DateTime, DateTimeFormat};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    time,
};

use super::credential_source::Process;

/// The most that a command may print.
const MAX_OUTPUT: u64 = 64 << 10;

/// A command that gave no credentials. What the command printed is never repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error(
        "there is no shell (sh) to run the credential_process {0} with, as in the gateway's image: add one, or use another source"
    )]
    NoShell(String),
    #[error("cannot run the credential_process {0}")]
    Run(String, #[source] io::Error),
    #[error("the credential_process {0} took longer than {1:?} and was ended")]
    Timeout(String, Duration),
    #[error("the credential_process {0} failed ({1}): run it by hand to see why")]
    Failed(String, std::process::ExitStatus),
    #[error("the credential_process {0} printed no credentials: JSON with Version 1, AccessKeyId and SecretAccessKey")]
    Output(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// Ends a command with all that it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // Without an ID it has ended by itself.
        let _gone = pid.map(|pid| kill_process_group(pid, Signal::KILL));
    }
}

impl Process {
    /// Runs the command, which is ended if it takes longer than that or nobody waits any more.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub(super) async fn run(&self, timeout: Duration) -> Result<Credentials, ProcessError> {
        let program = || self.program().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", &self.command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let spawned = command.process_group(0).kill_on_drop(true).spawn();
        let mut group = Group(spawned.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ProcessError::NoShell(program()),
            _ => ProcessError::Run(program(), error),
        })?);
        let running = async {
            let mut output = Vec::new();
            if let Some(stdout) = group.0.stdout.take() {
                stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
            }
            Ok((group.0.wait().await?, output))
        };
        let ended =
            time::timeout(timeout, running).await.map_err(|_elapsed| ProcessError::Timeout(program(), timeout))?;
        let (status, output) = ended.map_err(|error| ProcessError::Run(program(), error))?;
        if !status.success() {
            return Err(ProcessError::Failed(program(), status));
        }
        credentials(&output).ok_or_else(|| ProcessError::Output(program()))
    }
}

fn credentials(output: &[u8]) -> Option<Credentials> {
    let printed: Printed = serde_json::from_slice(output).ok().filter(|printed: &Printed| printed.version == 1)?;
    let expires = match &printed.expiration {
        Some(time) => Some(DateTime::from_str(time, DateTimeFormat::DateTimeWithOffset).ok()?.try_into().ok()?),
        None => None,
    };
    let Printed { access_key_id, secret_access_key, session_token, .. } = printed;
    Some(Credentials::new(access_key_id, secret_access_key, session_token, expires, "credential_process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &str) -> Process {
        Process { profile: "a".to_owned(), command: command.to_owned() }
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn credentials_are_what_a_command_prints() {
        let printed = r#"{"Version":1,"AccessKeyId":"AKIA","SecretAccessKey":"s","SessionToken":"t","Expiration":"2030-01-01T00:00:00+00:00"}"#;
        let credentials = process(&format!("echo '{printed}'; echo noise >&2")).run(PATIENCE).await.unwrap();
        assert_eq!((credentials.access_key_id(), credentials.session_token()), ("AKIA", Some("t")));
        assert!(credentials.expiry().is_some());
    }

    #[tokio::test]
    async fn a_failure_names_the_command_and_repeats_nothing_of_it() {
        for (command, expected) in [
            (
                "/opt/creds --key hunter2; echo hunter2 >&2; exit 7",
                "the credential_process /opt/creds failed (exit status: 7)",
            ),
            ("echo hunter2", "the credential_process echo printed no credentials"),
            (
                r#"echo '{"Version":2,"AccessKeyId":"hunter2","SecretAccessKey":"hunter2"}'"#,
                "the credential_process echo printed",
            ),
        ] {
            let error = process(command).run(PATIENCE).await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with(expected) && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_with_all_that_it_started() {
        let file =
            std::env::temp_dir().join(format!("ssm-gateway-process-{}-{:x}", std::process::id(), fastrand::u64(..)));
        let command = format!("sh -c 'echo $$ > {0}; sleep 1000' & wait", file.display());
        let process = process(&command);
        // It has begun before its time is over, however busy the machine is.
        let mut running = Box::pin(process.run(PATIENCE));
        let pid = loop {
            tokio::select! {
                outcome = &mut running => panic!("it ended: {outcome:?}"),
                () = time::sleep(Duration::from_millis(1)) => {}
            }
            if let Some(pid) = std::fs::read_to_string(&file).ok().and_then(|pid| pid.trim().parse::<u32>().ok()) {
                break pid;
            }
        };
        drop(running);
        let is_running = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        time::timeout(PATIENCE, async {
            while is_running() {
                time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        std::fs::remove_file(file).unwrap();
        let error = process_error().await;
        assert!(matches!(error, ProcessError::Timeout(..)), "{error}");
    }

    async fn process_error() -> ProcessError {
        process("sleep 1000").run(Duration::from_millis(1)).await.unwrap_err()
    }
}
