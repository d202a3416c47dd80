//! Readiness: a gateway is ready once every required target has answered, and stays ready.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{task::JoinSet, time};

use super::generation::Generation;
use crate::{
    edge::Stage,
    model::{Filters, Freshness, Query},
    read::{Listings, Target},
};

/// The pause after a required target failed without saying when to ask again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Generation {
    /// Returns why no calls should be sent to this gateway, if none should.
    pub(super) fn unready(&self) -> Option<String> {
        let stage = self.process.stages.now();
        if stage != Stage::Serving {
            return Some(format!("the gateway is going away: {}", stage.as_str()));
        }
        let unanswered = || self.unanswered().map(|target| target.name().as_str()).collect::<Vec<_>>().join(", ");
        (!self.latch_readiness()).then(|| format!("AWS has not answered yet for {}", unanswered()))
    }

    /// Latches readiness if every required target has answered. Returns whether readiness is latched.
    pub(super) fn latch_readiness(&self) -> bool {
        if self.unanswered().next().is_none() {
            self.process.is_ready.store(true, Relaxed);
        }
        self.process.is_ready.load(Relaxed)
    }

    /// Asks every required target that has not answered yet, until it answers or the returned set is dropped.
    pub(super) fn warm_up(&self) -> JoinSet<()> {
        let queries = self.unanswered().map(|target| Query::new(target.name().clone(), Filters::Current(Vec::new())));
        queries.map(|query| ask_until_answered(self.listings.clone(), query)).collect()
    }

    /// Returns the required targets that have not answered yet.
    fn unanswered(&self) -> impl Iterator<Item = &Target> {
        let is_required = |target: &&Target| self.config.is_required(target.name());
        self.listings.targets().filter(is_required).filter(|target| target.last_answered().is_none())
    }
}

/// Reads the first page of `query`, as often as that fails.
async fn ask_until_answered(listings: Listings, query: Query) {
    loop {
        let Ok(mut reader) = listings.open(&query, Freshness::default(), None) else { return };
        let Err(failed) = reader.read(1).await else { return };
        time::sleep(failed.retry_after.unwrap_or(RETRY_DELAY)).await;
    }
}
