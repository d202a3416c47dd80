use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus::{Histogram, HistogramOpts, Registry};
use tokio::time::Instant;

use super::{Provenance, ReadError, Served, lock};
use crate::model::TargetName;

/// The outcome of a read: of its first page, or of the error in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The page was in memory, and fresh.
    Hit,
    /// The reader caused a fetch, and waited for the page.
    Miss,
    /// The reader waited for a fetch that another reader had caused.
    Coalesced,
    /// The page was older than the reader's `max_age`.
    Stale,
    /// The reader got at once an error that stands for an answer of AWS.
    Refused,
    /// The reader waited for a fetch that failed.
    Failed,
}

/// The number of reads by outcome, each reader counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Outcome::ALL.len()]);

/// [`Counts`] that are still counted.
#[derive(Debug, Default)]
pub(super) struct Counter([AtomicU64; Outcome::ALL.len()]);

/// The counts of a target's reads, and the durations of its fetches.
#[derive(Debug)]
pub struct Metrics {
    target: TargetName,
    pub(super) readers: Counter,
    /// By outcome. Retries of one page are one fetch.
    fetches: Mutex<BTreeMap<&'static str, Histogram>>,
    waits: Histogram,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 6] = [Self::Hit, Self::Miss, Self::Coalesced, Self::Stale, Self::Refused, Self::Failed];

    /// Returns the name of the outcome in metrics and logs.
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
    /// Returns how many reads had this outcome.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "there is a count for each outcome")]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
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
    #[expect(clippy::indexing_slicing, reason = "there is a counter for each outcome")]
    pub(super) fn add(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts(self.0.each_ref().map(|counter| counter.load(Relaxed)))
    }
}

impl Metrics {
    pub(super) fn new(target: &TargetName) -> Self {
        let help = "How long fetches waited to be admitted.";
        Self {
            target: target.clone(),
            readers: Counter::default(),
            fetches: Mutex::default(),
            waits: histogram("ssm_gateway_upstream_wait_seconds", help, &[("target", target.as_str())]),
        }
    }

    /// Returns how many readers came to each outcome.
    #[must_use]
    pub fn readers(&self) -> Counts {
        self.readers.counts()
    }

    /// Returns the durations of fetches by outcome: `answered`, or the
    /// [kind](crate::source::UpstreamError::kind) of failure.
    #[must_use]
    pub fn fetches(&self) -> BTreeMap<&'static str, Histogram> {
        lock(&self.fetches).clone()
    }

    /// Registers the durations of fetches, and of the waits before them.
    ///
    /// # Errors
    /// A target of this name is registered already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        for fetches in self.fetches().into_values() {
            registry.register(Box::new(fetches))?;
        }
        registry.register(Box::new(self.waits.clone()))
    }

    pub(super) fn fetched(&self, outcome: &'static str, since: Instant) {
        let help = "How long fetches of pages took, retries included, by what came of them.";
        let labels = [("target", self.target.as_str()), ("outcome", outcome)];
        let new = || histogram("ssm_gateway_upstream_fetch_duration_seconds", help, &labels);
        lock(&self.fetches).entry(outcome).or_insert_with(new).observe(since.elapsed().as_secs_f64());
    }

    pub(super) fn waited(&self, since: Instant) {
        self.waits.observe(since.elapsed().as_secs_f64());
    }
}

/// Returns a histogram of seconds, with the buckets of Prometheus's client libraries.
#[expect(clippy::expect_used, reason = "Prometheus refuses nothing but names, and the names are constants")]
fn histogram(name: &str, help: &str, labels: &[(&str, &str)]) -> Histogram {
    let options = HistogramOpts::new(name, help);
    let options = labels.iter().fold(options, |options, (label, value)| options.const_label(*label, *value));
    Histogram::with_opts(options).expect("the names of the metric and of its labels are valid")
}
