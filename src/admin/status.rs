use serde::{Deserialize, Serialize};

/// A snapshot of a gateway, which `/status` returns as JSON. Times are RFC 3339. Counters start with the gateway, those
/// of a target when a reload changes it. Members that another version does not send are zero or empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names of the others say it")]
pub struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    /// `serving`, or the stage of the drain.
    pub stage: String,
    /// Why the gateway is not ready for calls; absent if it is.
    pub unready: Option<String>,
    /// Whether the last configuration that was loaded is invalid, so that an older one is in use.
    pub has_reload_failed: bool,
    pub connections: i64,
    pub calls: Calls,
    /// The principals with active calls, those with the most calls first.
    pub callers: Vec<Caller>,
    pub memory: Memory,
    pub targets: Vec<Target>,
    /// The most recently used listings, of `listing_count`.
    pub listings: Vec<Listing>,
    pub listing_count: usize,
}

/// The calls of all methods.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Calls {
    pub active: i64,
    pub ended: u64,
    /// Ended calls whose status is not OK.
    pub failed: u64,
}

/// A principal with active calls.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Caller {
    pub principal: String,
    pub active: usize,
}

/// The memory of listings, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Memory {
    pub bytes: usize,
    pub max_bytes: usize,
    /// Listings that were evicted for lack of memory.
    pub evictions: u64,
}

/// The outcomes of readers, each reader counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words for provenance")]
pub struct Reads {
    pub hit: u64,
    pub miss: u64,
    pub coalesced: u64,
    pub stale: u64,
    /// Got a cached error at once.
    pub refused: u64,
    /// Waited for a fetch that failed.
    pub failed: u64,
}

/// A target.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names of the others say it")]
pub struct Target {
    pub name: String,
    pub region: String,
    pub is_default: bool,
    pub is_required: bool,
    /// `unused`, `ready`, `throttled`, `unavailable`, `breaker_open` or `denied`.
    pub state: String,
    /// The current rate of requests to AWS per second, and its maximum.
    pub rate: f64,
    pub max_rate: f64,
    /// Queued fetches.
    pub waiting: usize,
    pub fetches: u64,
    pub throttled: u64,
    pub retries: u64,
    pub last_answered: Option<String>,
    pub last_error: Option<Failure>,
    pub reads: Reads,
}

/// A failure of a target, without AWS's message, which may name roles and accounts. The log has it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Failure {
    pub at: String,
    pub what: String,
    pub aws_error_code: Option<String>,
    pub aws_request_id: Option<String>,
}

/// A listing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names of the others say it")]
pub struct Listing {
    pub target: String,
    /// The filters as text; empty if there are none.
    pub filters: String,
    /// `open`, `complete` or `broken`.
    pub state: String,
    /// Whether its walk is in progress.
    pub is_advancing: bool,
    /// The time since the first fetch was sent.
    pub age_seconds: Option<f64>,
    pub ttl_seconds: f64,
    pub bytes: usize,
    /// Upstream pages that contain nodes.
    pub pages: usize,
    pub readers: usize,
    /// How long the slowest reader has read nothing.
    pub slowest_reader_seconds: f64,
    pub reads: Reads,
}

impl Status {
    /// Returns the sum of the reads of all targets.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.targets.iter().map(|target| target.reads).sum()
    }
}

impl Reads {
    /// Returns the number of readers.
    #[must_use]
    pub fn total(self) -> u64 {
        let Self { hit, miss, coalesced, stale, refused, failed } = self;
        hit + miss + coalesced + stale + refused + failed
    }

    /// Returns the number of readers that got a page without a fetch of their own.
    #[must_use]
    pub fn shared(self) -> u64 {
        self.hit + self.coalesced + self.stale
    }
}

impl std::iter::Sum for Reads {
    fn sum<I: Iterator<Item = Self>>(reads: I) -> Self {
        reads.fold(Self::default(), |sum, reads| Self {
            hit: sum.hit + reads.hit,
            miss: sum.miss + reads.miss,
            coalesced: sum.coalesced + reads.coalesced,
            stale: sum.stale + reads.stale,
            refused: sum.refused + reads.refused,
            failed: sum.failed + reads.failed,
        })
    }
}
