use serde::{Deserialize, Serialize};

/// How a gateway is at a moment, as `/status` tells it in JSON. Times are RFC 3339. Counts are since the gateway started, those of a
/// target since a reload changed it. What another version does not tell is as if it were nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "what is not said here, the name says")]
pub struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    /// `serving`, or how far it is on its way to the end.
    pub stage: String,
    /// Why it should be sent no calls, if it should not.
    pub unready: Option<String>,
    /// Whether the configuration that it was told last could not be used.
    pub has_reload_failed: bool,
    pub connections: i64,
    pub calls: Calls,
    /// Who has calls going on, the most first.
    pub callers: Vec<Caller>,
    pub memory: Memory,
    pub targets: Vec<Target>,
    /// The most recently used ones, of so many.
    pub listings: Vec<Listing>,
    pub listing_count: usize,
}

/// Calls of all methods.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Calls {
    pub active: i64,
    pub ended: u64,
    /// Those of them that ended with an error.
    pub failed: u64,
}

/// Somebody who calls.
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
    /// Listings that were given up for want of it.
    pub evictions: u64,
}

/// What readers came to, each counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "DESIGN's words for provenance")]
pub struct Reads {
    pub hit: u64,
    pub miss: u64,
    pub coalesced: u64,
    pub stale: u64,
    /// Told at once the error that stands for an answer of AWS.
    pub refused: u64,
    /// Waited for a fetch that failed.
    pub failed: u64,
}

/// A target.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "what is not said here, the name says")]
pub struct Target {
    pub name: String,
    pub region: String,
    pub is_default: bool,
    pub is_required: bool,
    /// `unused`, `ready`, `throttled`, `unavailable`, `breaker_open` or `denied`.
    pub state: String,
    /// Requests a second that AWS may be sent now, and at most.
    pub rate: f64,
    pub max_rate: f64,
    /// Fetches that wait for their turn.
    pub waiting: usize,
    pub fetches: u64,
    pub throttled: u64,
    pub retries: u64,
    pub last_answered: Option<String>,
    pub last_error: Option<Failure>,
    pub reads: Reads,
}

/// A failure of a target. AWS's words, which may name roles and accounts, are in the log.
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
#[expect(missing_docs, reason = "what is not said here, the name says")]
pub struct Listing {
    pub target: String,
    /// Its filters as text; empty where there are none.
    pub filters: String,
    /// `open`, `complete` or `broken`.
    pub state: String,
    /// Whether its walk goes on right now.
    pub is_advancing: bool,
    /// The time since its first fetch was sent.
    pub age_seconds: Option<f64>,
    pub ttl_seconds: f64,
    pub bytes: usize,
    /// Upstream pages with nodes in them.
    pub pages: usize,
    pub readers: usize,
    /// How long the slowest of them has taken nothing.
    pub slowest_reader_seconds: f64,
    pub reads: Reads,
}

impl Status {
    /// What the readers of all targets came to.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.targets.iter().map(|target| target.reads).sum()
    }
}

impl Reads {
    /// All that were counted.
    #[must_use]
    pub fn total(self) -> u64 {
        let Self { hit, miss, coalesced, stale, refused, failed } = self;
        hit + miss + coalesced + stale + refused + failed
    }

    /// Those for which no fetch was made of their own, and which were told no error.
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
