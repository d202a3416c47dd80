use std::{
    io::{self, Write as _},
    time::Duration,
};

use tokio::time;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{CliError, admin::Admin, client::Server, terminal::harmless};

/// Ask a running gateway whether it serves.
///
/// Ends with exit code 0 if it does, whatever becomes of the output, and 1 if it is going away, has no such service, or cannot
/// be reached.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
    /// The service to ask about, by its full name [default: the server as a whole].
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Ask this admin address instead of --server, which proves nothing and never speaks TLS, whether the gateway is ready.
    #[arg(long, value_name = "URL", conflicts_with = "service")]
    admin: Option<Admin>,
    /// How long it may take in all.
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

/// Prints the answer, which the exit code gives, too: where the output goes to a full disk or to nobody, the gateway serves all
/// the same.
fn print(answer: &str) {
    let _lost = writeln!(io::stdout(), "{}", harmless(answer));
}
