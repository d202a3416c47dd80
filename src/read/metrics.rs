use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Provenance, ReadError, Served, lock};

/// What came of a reader: of its first page, or of the error in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The page was there, and fresh.
    Hit,
    /// It caused a fetch and waited for it.
    Miss,
    /// It waited for a fetch that another had caused.
    Coalesced,
    /// The page was older than it asked for.
    Stale,
    /// It was told at once the error that stands for an answer of upstream.
    Refused,
    /// It waited for a fetch that failed.
    Failed,
}

/// How many readers came to what, each counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Outcome::ALL.len()]);

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counter([AtomicU64; Outcome::ALL.len()]);

/// What a target's walks and readers did so far, as they do it.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(super) readers: Counter,
    /// By what came of them; retries of one page are one fetch.
    fetches: Mutex<BTreeMap<&'static str, Durations>>,
    waits: Mutex<Durations>,
}

/// How long things took, counted by upper bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Durations {
    /// How many took longer than the bound before, and no longer than this one; the last, longer than all.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// The time that they took together.
    pub sum: Duration,
}

impl Outcome {
    /// All there are.
    pub const ALL: [Self; 6] = [Self::Hit, Self::Miss, Self::Coalesced, Self::Stale, Self::Refused, Self::Failed];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl From<&Provenance> for Outcome {
    fn from(page: &Provenance) -> Self {
        match page.served {
            _ if page.is_stale => Self::Stale,
            Served::Hit => Self::Hit,
            Served::Coalesced => Self::Coalesced,
            Served::Miss => Self::Miss,
        }
    }
}

impl From<&ReadError> for Outcome {
    fn from(error: &ReadError) -> Self {
        if error.has_waited { Self::Failed } else { Self::Refused }
    }
}

impl Counts {
    /// How many came to this.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).copied().unwrap_or_default()
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |Self(mut sum), Self(other)| {
            sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
            Self(sum)
        })
    }
}

impl Counter {
    pub(super) fn add(&self, outcome: Outcome) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts(self.0.each_ref().map(|counter| counter.load(Relaxed)))
    }
}

impl Durations {
    /// The bounds, in seconds.
    pub const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, took: Duration) {
        let bucket = Self::BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += took;
    }
}

impl Metrics {
    /// What its readers came to.
    #[must_use]
    pub fn readers(&self) -> Counts {
        self.readers.counts()
    }

    /// How long its fetches took, by what came of them: `answered`, or the [kind](crate::source::UpstreamError::kind) of failure.
    #[must_use]
    pub fn fetches(&self) -> BTreeMap<&'static str, Durations> {
        lock(&self.fetches).clone()
    }

    /// How long they waited for their turn.
    #[must_use]
    pub fn waits(&self) -> Durations {
        *lock(&self.waits)
    }

    pub(super) fn fetched(&self, outcome: &'static str, since: Instant) {
        lock(&self.fetches).entry(outcome).or_default().add(since.elapsed());
    }

    pub(super) fn waited(&self, since: Instant) {
        lock(&self.waits).add(since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_up_to_its_bound_as_prometheus_has_it() {
        let mut durations = Durations::default();
        for millis in [0, 5, 6, 10_000, 10_001] {
            durations.add(Duration::from_millis(millis));
        }
        assert_eq!(durations.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((durations.count(), durations.sum), (5, Duration::from_millis(20_012)));
    }
}
