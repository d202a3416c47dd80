use std::pin::pin;

use futures_util::{StreamExt as _, stream};
use tokio::signal::unix::SignalKind;
use tracing::info;

use super::{CliError, settings::Settings, signals, stop_signals};
use crate::app::{App, Signal};

/// Serve callers, asking AWS for them.
///
/// Credentials come from where every AWS tool takes them: the environment, the shared files, a web identity, the
/// container or the instance. So do the region and the endpoint where they are not given here. Flags win over the
/// environment, and both over the configuration file. SIGHUP has the file read again: its targets, policy and limits are
/// used from then on, all together or, if anything is wrong, none. Stops on Ctrl-C or SIGTERM, calls in flight first; the
/// second time at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Self { settings } = self;
        // First of all: until there is a handler, the system ends the process for SIGHUP, and ignores SIGTERM for PID 1.
        let (mut stops, hang_ups) = (pin!(stop_signals()?), signals(SignalKind::hangup())?);
        let config = settings.read()?;
        let _log = config.log.start()?;
        let traces = config.trace.start()?;
        // Connections are file descriptors, of which shells commonly allow few.
        let _as_many_as_there_are = rlimit::increase_nofile_limit(u64::MAX);
        let naming = CliError::naming("--listen (listen in [edge])", "--admin-listen (listen in [admin])");
        let reloads = hang_ups.map(|()| Signal::Reload(settings.read().map(Box::new)));
        // Targets without a region ask the instance's metadata for it, one after the other, each until that times out.
        let app = tokio::select! {
            app = App::build(config) => Some(app),
            _ = stops.next() => None,
        };
        if let Some(app) = app.transpose().map_err(naming)? {
            app.serve(stream::select(stops, reloads)).await;
        } else {
            info!("stopped before the gateway was serving");
        }
        if let Some(traces) = traces {
            traces.stop().await;
        }
        Ok(())
    }
}
