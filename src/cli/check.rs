use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use super::CliError;
use crate::{app::App, config::Config};

/// Check a configuration file without serving.
///
/// Reads it as serve does, and checks every target; AWS is not asked. Prints the targets, the default one with a star.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file, in TOML.
    #[arg(long, value_name = "FILE", env = "SSM_GATEWAY_CONFIG")]
    config: PathBuf,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = Config::read(&self.config)?;
        let default = config.default_target();
        for target in App::targets(&config).await? {
            let star = if default.as_ref() == Some(target.name()) { '*' } else { ' ' };
            writeln!(io::stdout(), "{star} {} in {}", target.name(), target.region())?;
        }
        Ok(())
    }
}
