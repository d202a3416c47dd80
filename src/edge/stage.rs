use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use tokio::sync::watch;

/// A stage of the gateway's life, in order: the gateway never goes back to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// The gateway serves.
    #[default]
    Serving,
    /// The gateway still serves everybody, and its health reports that callers should go elsewhere.
    NotServing,
    /// The gateway accepts no connection and no call any more, and lets those in flight finish.
    GoingAway,
    /// The gateway ends the calls that are left, with a status.
    Ending,
    /// The gateway closes the connections that are left.
    CutOff,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 5] = [Self::Serving, Self::NotServing, Self::GoingAway, Self::Ending, Self::CutOff];

    /// Returns the name of the stage in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NotServing => "not_serving",
            Self::GoingAway => "going_away",
            Self::Ending => "ending",
            Self::CutOff => "cut_off",
        }
    }
}

/// The stage that the gateway has reached. Clones share it: each can advance the stage and wait for it.
#[derive(Debug, Clone, Default)]
pub struct Stages(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    changes: watch::Sender<Stage>,
    /// The same stage, for readers that look at it with every frame.
    now: AtomicU8,
}

impl Stages {
    /// Advances to this stage. Returns false if the gateway had reached it already.
    #[expect(clippy::must_use_candidate, reason = "most callers need the effect alone")]
    pub fn advance(&self, to: Stage) -> bool {
        self.0.changes.send_if_modified(|stage| {
            let is_new = *stage < to;
            *stage = to.max(*stage);
            self.0.now.store(*stage as u8, Relaxed);
            is_new
        })
    }

    /// Returns whether the gateway has reached this stage, or a later one.
    #[must_use]
    pub fn has_reached(&self, stage: Stage) -> bool {
        self.0.now.load(Relaxed) >= stage as u8
    }

    /// Returns the stage that the gateway has reached.
    #[must_use]
    pub fn now(&self) -> Stage {
        *self.0.changes.borrow()
    }

    /// Waits until the gateway has reached this stage, or a later one.
    pub async fn reached(&self, stage: Stage) {
        // The sender is not gone before `self` is.
        let mut stages = self.0.changes.subscribe();
        let _closed = stages.wait_for(|now| *now >= stage).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_stage_is_reached_with_all_before_it_and_never_left() {
        let stages = Stages::default();
        let mut going_away = Box::pin(stages.reached(Stage::GoingAway));
        assert!(stages.has_reached(Stage::Serving) && going_away.as_mut().now_or_never().is_none());
        assert!(stages.advance(Stage::Ending));
        assert!(going_away.now_or_never().is_some());
        assert!(!stages.advance(Stage::NotServing) && stages.has_reached(Stage::Ending));
    }
}
