use std::io::{self, Write as _};

use super::{CliError, settings::Settings};
use crate::{app::App, telemetry::LogConfig};

/// Check a configuration without serving.
///
/// Reads it as serve does, file, environment and flags, and checks every target, certificate and key; AWS is not asked.
/// Prints the targets, the default one with a star.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.settings.read()?;
        // Warnings of what the files hold. Other crates' are about what is not done here.
        let log = LogConfig { filter: "ssm_gateway=warn".to_owned(), ..LogConfig::default() };
        let _log = log.start()?;
        App::check_files(&config).await?;
        for warning in config.unmatched() {
            writeln!(io::stderr(), "warning: {warning}")?;
        }
        let default = config.default_target();
        for target in App::targets(&config).await? {
            let star = if default.as_ref() == Some(target.name()) { '*' } else { ' ' };
            let (name, region, credentials) = (target.name(), target.region(), target.signed_by());
            writeln!(io::stdout(), "{star} {name} in {region}, credentials: {credentials}")?;
        }
        Ok(())
    }
}
