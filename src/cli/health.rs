use std::{
    io::{self, Write as _},
    time::Duration,
};

use tokio::time;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{admin::Admin, client::Server, error::CliError, terminal::harmless};

/// Check whether a running gateway serves.
///
/// Exits with 0 if the gateway serves, even if the output cannot be written, and with 1 if it is draining, does not
/// have the service, or cannot be reached.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// The full name of the service to check [default: the server as a whole].
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Ask this admin address, which needs no credential and no TLS, whether the gateway is ready. Ignores --server.
    #[arg(long, value_name = "URL", conflicts_with = "service")]
    admin: Option<Admin>,
    /// The timeout of the command.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
    timeout: Duration,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        time::timeout(self.timeout, self.ask()).await.unwrap_or(Err(CliError::Timeout))
    }

    async fn ask(self) -> Result<(), CliError> {
        if let Some(admin) = &self.admin {
            print(String::from_utf8_lossy(&admin.get("/readyz", None).await?).trim_end());
            return Ok(());
        }
        let mut client = HealthClient::new(self.server.connect().await?);
        let request = HealthCheckRequest { service: self.service };
        let answer = client.check(request).await.map_err(|status| self.server.failed(status))?.into_inner();
        let status = answer.status();
        if status != ServingStatus::Serving {
            return Err(CliError::NotServing(status.as_str_name().to_owned()));
        }
        print(status.as_str_name());
        Ok(())
    }
}

/// Prints the answer. Errors are ignored, because the exit code reports the health: a full disk or a closed pipe does
/// not change it.
fn print(answer: &str) {
    let _unwritten = writeln!(io::stdout(), "{}", harmless(answer));
}
