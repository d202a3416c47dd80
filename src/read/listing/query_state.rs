use std::sync::Arc;

use tokio::{sync::Semaphore, time::Instant};

use crate::{
    model::Query,
    read::{
        Config, Target,
        hold_off::{Held, HoldOff},
    },
};

/// How many walks of one query, from its start, advance at a time: one, and one for readers who demand fresher.
const WALKS: usize = 2;

/// What all listings of one query share.
#[derive(Debug)]
pub(super) struct QueryState {
    pub(super) target: Arc<Target>,
    pub(super) query: Query,
    pub(super) hold_off: HoldOff,
    /// A walk from the start holds one while it advances.
    pub(super) walk_slots: Arc<Semaphore>,
}

impl QueryState {
    pub(super) fn new(target: &Arc<Target>, query: &Query) -> Self {
        let walk_slots = Arc::new(Semaphore::new(WALKS));
        Self { target: Arc::clone(target), query: query.clone(), hold_off: HoldOff::default(), walk_slots }
    }

    /// Returns the error that stands for an answer of upstream now.
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
