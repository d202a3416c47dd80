use std::{net::SocketAddr, path::PathBuf};

use super::{CliError, stop_signal};
use crate::{app::App, config::Config, telemetry::Format};

/// Serve callers, asking AWS for them.
///
/// Credentials come from where every AWS tool takes them: the environment, the shared files, a web identity, the
/// container or the instance. So do the region and the endpoint where they are not given here. Flags win over the
/// environment, and both over the configuration file. Stops on Ctrl-C or SIGTERM, calls in flight first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file, in TOML.
    #[arg(long, value_name = "FILE", env = "SSM_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDR", env = "SSM_GATEWAY_LISTEN")]
    listen: Option<SocketAddr>,
    /// The AWS region to ask [default: AWS's own variables and files].
    #[arg(long, env = "SSM_GATEWAY_REGION")]
    region: Option<String>,
    /// Another endpoint than the region's own, such as a simulator's.
    #[arg(long, value_name = "URL", env = "SSM_GATEWAY_ENDPOINT_URL")]
    endpoint_url: Option<String>,
    /// The profile in AWS's shared files.
    #[arg(long, env = "SSM_GATEWAY_PROFILE")]
    profile: Option<String>,
    /// How log lines look [default: human].
    #[arg(long, value_name = "FORMAT", env = "SSM_GATEWAY_LOG_FORMAT")]
    log_format: Option<Format>,
    /// Which log lines are written: a level, or a list of MODULE=LEVEL [default: info].
    #[arg(long, value_name = "FILTER", env = "SSM_GATEWAY_LOG_FILTER")]
    log_filter: Option<String>,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = self.config()?;
        config.log.start()?;
        let stop = stop_signal()?;
        App::build(config).await?.serve(stop).await;
        Ok(())
    }

    fn config(self) -> Result<Config, CliError> {
        let Self { config, listen, region, endpoint_url, profile, log_format, log_filter } = self;
        let mut config = config.map_or_else(|| Ok(Config::default()), |path| Config::read(&path))?;
        config.edge.listen = listen.unwrap_or(config.edge.listen);
        config.upstream.region = region.or(config.upstream.region);
        config.upstream.endpoint_url = endpoint_url.or(config.upstream.endpoint_url);
        config.upstream.profile = profile.or(config.upstream.profile);
        config.log.format = log_format.unwrap_or(config.log.format);
        config.log.filter = log_filter.unwrap_or(config.log.filter);
        Ok(config)
    }
}
