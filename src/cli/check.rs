use std::io::{self, Write as _};

use super::{error::CliError, settings::Settings};
use crate::{app::App, telemetry::LogConfig};

/// Validate a configuration without serving.
///
/// Reads file, environment and flags as serve does, and checks every target, certificate and key, without calling AWS.
/// Prints the targets and the sources of their credentials; a star marks the default target.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.settings.read()?;
        // Only the gateway's own warnings, which are about the files: other crates warn about calls, which `check` does
        // not make.
        let log = LogConfig { filter: "ssm_gateway=warn".to_owned(), ..LogConfig::default() };
        let _log = log.start()?;
        App::check_files(&config).await?;
        for warning in config.unmatched() {
            writeln!(io::stderr(), "warning: {warning}")?;
        }
        let default = config.default_target();
        for target in App::targets(&config).await? {
            let star = if default.as_ref() == Some(target.name()) { '*' } else { ' ' };
            let name = target.name();
            let region = target.region();
            let credentials = target.signed_by();
            writeln!(io::stdout(), "{star} {name} in {region}, credentials: {credentials}")?;
        }
        Ok(())
    }
}
