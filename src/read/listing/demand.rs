use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// What a reader wants of a listing.
#[derive(Debug)]
pub(super) struct Demand {
    /// The page from which on it still needs them, counted from the listing's first.
    pub(super) at: usize,
    /// How many pages it wants there to be.
    pub(super) wants: usize,
    /// The page that it was not given yet.
    pub(super) waits_for: Option<usize>,
    pub(super) clock: Arc<ReadClock>,
}

/// When a call last took a page: one clock for all its readers, since a call takes from one at a time.
#[derive(Debug, Default)]
pub struct ReadClock {
    /// When it took the first.
    first: OnceLock<Instant>,
    /// How long after that it took the last.
    nanos: AtomicU64,
}

impl Demand {
    /// Returns how long its call has taken nothing, though there was something to take among so many pages.
    pub(super) fn idle(&self, pages: usize, now: Instant) -> Duration {
        let is_waiting = self.waits_for.is_some_and(|page| page >= pages);
        let taken = self.clock.at().filter(|_| !is_waiting);
        taken.map_or(Duration::ZERO, |taken| now.saturating_duration_since(taken))
    }
}

impl ReadClock {
    /// Notes that the call takes something now.
    pub fn note(&self, now: Instant) {
        let nanos = now.saturating_duration_since(*self.first.get_or_init(|| now)).as_nanos();
        self.nanos.store(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
    }

    /// Returns when the call took the last; none if it took none yet.
    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        Some(*self.first.get()? + Duration::from_nanos(self.nanos.load(Relaxed)))
    }
}
