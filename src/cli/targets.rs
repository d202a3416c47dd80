use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use tokio::time;

use super::{client::Server, error::CliError, terminal::harmless};
use crate::proto::{ListTargetsRequest, Target, TargetState, target_service_client::TargetServiceClient};

/// List the targets of a running gateway, and their states.
///
/// A target is unused until its first call. It is ready after AWS answered, throttled while AWS throttles it,
/// unavailable after a failed attempt, and denied if AWS denies its credentials or its role. After several consecutive
/// failures its breaker is open: the gateway does not ask it for a while. A star marks the default target.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// The timeout of the command.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    timeout: Duration,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        time::timeout(self.timeout, self.list()).await.unwrap_or(Err(CliError::Timeout))
    }

    async fn list(self) -> Result<(), CliError> {
        let mut client = TargetServiceClient::new(self.server.connect().await?);
        let answer = client.list_targets(ListTargetsRequest {}).await;
        let targets = answer.map_err(|status| self.server.failed(status))?.into_inner().targets;
        let width = targets.iter().map(|target| target.name.len()).chain([4]).max().unwrap_or_default();
        writeln!(io::stdout(), "  {:width$}  {:14}  {:12}  LAST ANSWERED", "NAME", "REGION", "STATE")?;
        for target in &targets {
            let star = if target.is_default { '*' } else { ' ' };
            let Target { name, region, .. } = target;
            let answered = answered(target).unwrap_or_else(|| "never".to_owned());
            let line = format!("{star} {name:width$}  {region:14}  {:12}  {answered}", state(target.state()));
            writeln!(io::stdout(), "{}", harmless(&line))?;
        }
        Ok(())
    }
}

fn state(state: TargetState) -> &'static str {
    match state {
        TargetState::Unspecified => "unknown",
        TargetState::Unused => "unused",
        TargetState::Ready => "ready",
        TargetState::Throttled => "throttled",
        TargetState::Unavailable => "unavailable",
        TargetState::Denied => "denied",
        TargetState::BreakerOpen => "breaker open",
    }
}

fn answered(target: &Target) -> Option<String> {
    let time = SystemTime::try_from(target.last_answered?).ok()?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}
