use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Came, Provenance};

/// What listings did so far, as they do it: each reader is counted once, by its first page.
#[derive(Debug, Default)]
pub struct Metrics {
    hits: AtomicU64,
    misses: AtomicU64,
    coalesced: AtomicU64,
    stale: AtomicU64,
    errors: AtomicU64,
    evictions: AtomicU64,
    upstream_calls: AtomicU64,
    upstream_micros: AtomicU64,
}

impl Metrics {
    /// Readers whose page was there, and fresh.
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Readers who caused a fetch and waited for it.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    /// Readers who waited for a fetch that another had caused.
    pub fn coalesced(&self) -> u64 {
        self.coalesced.load(Relaxed)
    }

    /// Readers whose page was older than they asked for.
    pub fn stale(&self) -> u64 {
        self.stale.load(Relaxed)
    }

    /// Readers who got an error in place of their first page.
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    /// Listings given up for want of memory.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Pages asked of upstream, those that failed included; retries of one page are one.
    pub fn upstream_calls(&self) -> u64 {
        self.upstream_calls.load(Relaxed)
    }

    /// The time that upstream took for them, all together.
    pub fn upstream_time(&self) -> Duration {
        Duration::from_micros(self.upstream_micros.load(Relaxed))
    }

    /// Counts a reader by its first page, or by the error in its place.
    pub(super) fn count(&self, first: Option<&Provenance>) {
        let counter = match first {
            None => &self.errors,
            Some(page) if page.is_stale => &self.stale,
            Some(page) => match page.came {
                Came::Hit => &self.hits,
                Came::Coalesced => &self.coalesced,
                Came::Miss => &self.misses,
            },
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn count_eviction(&self) {
        self.evictions.fetch_add(1, Relaxed);
    }

    pub(super) fn count_upstream_call(&self, took: Duration) {
        self.upstream_calls.fetch_add(1, Relaxed);
        self.upstream_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}
