use std::pin::pin;

use futures_util::{StreamExt as _, stream};
use tokio::signal::unix::SignalKind;
use tracing::info;

use super::{
    error::CliError,
    settings::Settings,
    signals::{signals, stop_signals},
};
use crate::app::{App, Signal};

/// Run the gateway: answer callers and ask AWS for the data.
///
/// Credentials come from the sources of every AWS tool: the environment, shared files, a web identity, the container or
/// the instance. So do region and endpoint, unless they are set here. Flags override the environment, and both override
/// the configuration file. SIGHUP reloads the file: new targets, policy and limits take effect at once, all together
/// or, if anything is invalid, not at all. On Ctrl-C or SIGTERM the gateway finishes the calls in flight and stops; a
/// second signal stops it at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Self { settings } = self;
        // Before anything else: without a handler SIGHUP ends the process, and PID 1 ignores SIGTERM.
        let mut stops = pin!(stop_signals()?);
        let hang_ups = signals(SignalKind::hangup())?;
        let config = settings.read()?;
        let _log = config.log.start()?;
        let traces = config.trace.start()?;
        // Each connection uses a file descriptor, and shells commonly allow few.
        let _increased = rlimit::increase_nofile_limit(u64::MAX);
        let naming = CliError::naming("--listen (listen in [edge])", "--admin-listen (listen in [admin])");
        let reloads = hang_ups.map(|()| Signal::Reload(settings.read().map(Box::new)));
        // The build may take long: each target without a region asks the instance's metadata until that times out.
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
