use futures_util::{Stream, StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use crate::app::Signal;

/// Returns a stream of the requests to stop: Ctrl-C or SIGTERM.
pub(super) fn stop_signals() -> Result<impl Stream<Item = Signal>, CliError> {
    let both = stream::select(signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    Ok(both.map(|()| Signal::Stop))
}

/// Returns a stream of all signals of this kind from now on.
pub(super) fn signals(kind: SignalKind) -> Result<impl Stream<Item = ()>, CliError> {
    let signals = signal(kind).map_err(CliError::Signal)?;
    Ok(stream::unfold(signals, async |mut signals| signals.recv().await.map(|()| ((), signals))))
}
