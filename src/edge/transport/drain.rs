use std::time::Duration;

use tokio::time;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::edge::stage::{Stage, Stages};

/// How long the tasks of calls that were cut off may take to log and count their calls.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The end of a listener: from the last connection that it accepts to the end of the last call. Advances the stage, by
/// which connections and calls know what to do.
#[derive(Debug)]
pub(super) struct Drain {
    /// How long connections are accepted after the gateway reported that it is not serving.
    pub(super) delay: Duration,
    /// How long connections may take to end after that.
    pub(super) timeout: Duration,
    pub(super) stages: Stages,
    /// The tasks of connections.
    pub(super) connections: TaskTracker,
    /// The tasks of calls, which outlive their connections for a moment.
    pub(super) calls: TaskTracker,
}

impl Drain {
    /// Waits until no more connections may be accepted: balancers have had `delay` to look elsewhere, or the operator
    /// wants the gateway to stop at once.
    pub(super) async fn begun(&self) {
        self.stages.reached(Stage::NotServing).await;
        ends_within(self.delay, self.stages.reached(Stage::CutOff)).await;
    }

    /// Sends all peers away and waits for their calls; ends the calls that are left with a status after three quarters
    /// of `timeout`, and cuts off what is left at its end.
    pub(super) async fn finish(self) {
        let Self { stages, connections, calls, .. } = &self;
        let quarter = self.timeout / 4;
        connections.close();
        stages.advance(Stage::GoingAway);
        if !ends_within(3 * quarter, connections.wait()).await {
            warn!(connections = connections.len(), "ending the calls that are left");
            stages.advance(Stage::Ending);
            if !ends_within(quarter, connections.wait()).await {
                warn!(connections = connections.len(), "the drain took too long: cutting off what is left");
            }
        }
        stages.advance(Stage::CutOff);
        connections.wait().await;
        calls.close();
        ends_within(FLUSH_TIMEOUT, calls.wait()).await;
    }
}

/// Waits for something, for a limited time. Returns whether it ended in time.
async fn ends_within(limit: Duration, what: impl Future<Output = ()>) -> bool {
    time::timeout(limit, what).await.is_ok()
}
