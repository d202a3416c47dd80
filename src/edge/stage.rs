use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use tokio::sync::watch;

/// How far the gateway is on its way from serving to the end. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// It serves.
    #[default]
    Serving,
    /// It still serves all who come, and its health says that they should go elsewhere.
    NotServing,
    /// It takes no connection and no call any more, and lets those in flight finish.
    GoingAway,
    /// It ends the calls that are left, with a status.
    Ending,
    /// It closes the connections that are left.
    CutOff,
}

impl Stage {
    /// All there are, in order.
    pub const ALL: [Self; 5] = [Self::Serving, Self::NotServing, Self::GoingAway, Self::Ending, Self::CutOff];

    /// Its name in metrics.
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

/// The stage of the gateway. Whoever has a clone may advance it, and wait for it.
#[derive(Debug, Clone, Default)]
pub struct Stages(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    changes: watch::Sender<Stage>,
    /// The same, for those who look at it with every frame.
    now: AtomicU8,
}

impl Stages {
    /// Goes on to this stage, unless it is reached. Tells whether it was not.
    #[expect(clippy::must_use_candidate, reason = "it is called for what it does")]
    pub fn advance(&self, to: Stage) -> bool {
        self.0.changes.send_if_modified(|stage| {
            let is_new = *stage < to;
            *stage = to.max(*stage);
            self.0.now.store(*stage as u8, Relaxed);
            is_new
        })
    }

    /// Whether this stage is reached.
    #[must_use]
    pub fn is_at(&self, stage: Stage) -> bool {
        self.0.now.load(Relaxed) >= stage as u8
    }

    /// The stage that is reached.
    #[must_use]
    pub fn now(&self) -> Stage {
        *self.0.changes.borrow()
    }

    /// Waits for this stage, or a later one.
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
        assert!(stages.is_at(Stage::Serving) && going_away.as_mut().now_or_never().is_none());
        assert!(stages.advance(Stage::Ending));
        assert!(going_away.now_or_never().is_some());
        assert!(!stages.advance(Stage::NotServing) && stages.is_at(Stage::Ending));
    }
}
