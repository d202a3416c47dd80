use std::sync::Arc;

use tokio::{sync::Semaphore, time::Instant};

use super::{
    Config, Target,
    hold_off::{Held, HoldOff},
};
use crate::model::Query;

/// What all listings of one query share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Arc<Target>,
    pub(super) query: Query,
    pub(super) hold_off: HoldOff,
    /// A walk from the start holds one while it advances.
    pub(super) turns: Arc<Semaphore>,
}

impl Shared {
    /// The error that stands for an answer of upstream now.
    pub(super) fn held(&self, now: Instant) -> Option<Held> {
        self.target.hold_off.held(now).or_else(|| self.hold_off.held(now))
    }

    /// Admits a fetch that is to be sent now, though not more than one where one may fail again; returns whether it is
    /// admitted.
    pub(super) fn try_enter(&self, sent: Instant, config: &Config) -> bool {
        let is_admitted = self.hold_off.try_enter(sent, config);
        if is_admitted && !self.target.hold_off.try_enter(sent, config) {
            self.hold_off.leave(sent);
            return false;
        }
        is_admitted
    }
}
