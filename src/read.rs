//! How a question about nodes is answered, from memory or upstream: freshness, failures and their hold-offs, sharing,
//! memory.
//!
//! [`Listings`] is the way in: it opens a [`Reader`] of a query, which shares one walk upstream with any number of
//! others.

mod hold_off;
mod listing;
mod metrics;
mod provenance;
mod target;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::{
    listing::{
        Head, InvalidCursor, ListingState, ListingStatus, Listings, Page, ReadClock, Reader, Render, Rendered,
        WholePage, belongs_to,
    },
    metrics::{Counts, Metrics, Outcome},
    provenance::{Provenance, Served},
    target::{LastError, Target, TargetState},
};
use crate::{
    setting::{InvalidSetting, bounded, positive, positive_bounded, require},
    source::UpstreamError,
};

/// The settings by which listings are shared, kept and bounded: the `[listing]` table of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a listing is fresh for callers who do not say.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How far past that a listing may be given, marked stale, to callers who do not say.
    #[serde(with = "humantime_serde")]
    pub max_stale: Duration,
    /// By how many percent TTLs and hold-offs vary, so that replicas do not act in step.
    pub jitter_percent: u8,
    /// How long empty answers and errors that depend on the request alone are kept.
    #[serde(with = "humantime_serde")]
    pub negative_ttl: Duration,
    /// How long upstream is not asked again after a failure without advice; it doubles from one failure to the next.
    #[serde(with = "humantime_serde")]
    pub hold_off: Duration,
    /// The most that it becomes.
    #[serde(with = "humantime_serde")]
    pub max_hold_off: Duration,
    /// After how many failures of AWS in a row the target is held off, and no longer the one query.
    pub breaker_failures: u32,
    /// How long a stream that has begun waits for a page while AWS throttles.
    #[serde(with = "humantime_serde")]
    pub throttle_patience: Duration,
    /// How many upstream pages are fetched ahead of a stream's reader.
    pub read_ahead: usize,
    /// How long a stream may take nothing before its reader is given up.
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,
    /// The most bytes of all listings together.
    pub max_bytes: usize,
    /// The most bytes of a listing that is kept from its start; absent, a quarter of `max_bytes`.
    pub max_listing_bytes: Option<usize>,
    /// How long a cursor may be used after it was handed out, at least; a tenth more at most.
    #[serde(with = "humantime_serde")]
    pub cursor_lifetime: Duration,
    /// The most upstream pages that a walk may have.
    pub page_cap: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: Duration::from_mins(1),
            max_stale: Duration::ZERO,
            jitter_percent: 10,
            negative_ttl: Duration::from_secs(5),
            hold_off: Duration::from_secs(1),
            max_hold_off: Duration::from_secs(30),
            breaker_failures: 5,
            throttle_patience: Duration::from_mins(1),
            read_ahead: 2,
            stall_timeout: Duration::from_mins(1),
            max_bytes: 256 << 20,
            max_listing_bytes: None,
            cursor_lifetime: Duration::from_hours(1),
            page_cap: 10_000,
        }
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that no listing could be kept or read by.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let &Self {
            ttl,
            max_stale,
            jitter_percent,
            negative_ttl,
            hold_off,
            max_hold_off,
            breaker_failures,
            throttle_patience,
            read_ahead: _,
            stall_timeout,
            max_bytes,
            max_listing_bytes,
            cursor_lifetime,
            page_cap,
        } = self;
        require(jitter_percent <= 100, "jitter_percent", "must be at most 100")?;
        positive("breaker_failures", breaker_failures)?;
        positive("page_cap", page_cap)?;
        positive("max_bytes", max_bytes)?;
        let is_bounded = max_listing_bytes.is_none_or(|bytes| bytes <= max_bytes);
        require(is_bounded, "max_listing_bytes", "must be at most listing.max_bytes")?;
        bounded("ttl", ttl)?;
        bounded("max_stale", max_stale)?;
        bounded("negative_ttl", negative_ttl)?;
        bounded("hold_off", hold_off)?;
        bounded("max_hold_off", max_hold_off)?;
        positive_bounded("stall_timeout", stall_timeout)?;
        positive_bounded("cursor_lifetime", cursor_lifetime)?;
        bounded("throttle_patience", throttle_patience)
    }

    /// Returns the time, a little longer or shorter at random.
    fn jittered(&self, time: Duration) -> Duration {
        let share = f64::from(self.jitter_percent.min(100)) / 100.0;
        time.mul_f64(1.0 + share * (2.0 * fastrand::f64() - 1.0))
    }

    /// Returns how long before it is handed out a cursor may be written.
    fn cursor_slack(&self) -> Duration {
        self.cursor_lifetime / 10
    }

    fn listing_cap(&self) -> usize {
        self.max_listing_bytes.unwrap_or(self.max_bytes / 4)
    }
}

/// A reader that could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such target.
    #[error("the target is unknown")]
    UnknownTarget,
    /// The cursor leads nowhere.
    #[error("the cursor is invalid")]
    InvalidCursor(#[from] InvalidCursor),
}

/// A listing that could not be read, or not further.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// AWS no longer takes the token that it gave this walk: the caller must ask again from the start.
    #[error("AWS let the listing's token expire")]
    Expired(#[source] UpstreamError),
    /// AWS gave a token twice: the walk would go round for ever.
    #[error("AWS repeated a token of the walk")]
    RepeatedToken,
    /// The walk has more pages than any fleet should.
    #[error("the walk is longer than {0} upstream pages")]
    PageCap(u32),
    /// A fetch failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// AWS failed for the target again and again, whatever was asked, and the last time said how long to wait, perhaps.
    #[error("the target's breaker is open")]
    BreakerOpen(Option<Duration>),
    /// The memory of all listings ran out, and this one had the slowest reader.
    #[error("the listing was given up for want of memory")]
    Evicted,
    /// The reader took nothing for too long.
    #[error("the reader took nothing for too long")]
    Stalled,
    /// The task that walked ended before its fetch did.
    #[error("the walk was interrupted")]
    Interrupted,
}

impl ListingError {
    /// Returns how long AWS says to wait.
    fn advice(&self) -> Option<Duration> {
        match self {
            Self::Upstream(error) => error.aws()?.retry_after,
            Self::BreakerOpen(advice) => *advice,
            _ => None,
        }
    }

    /// Returns whether the request alone is at fault: waiting does not help, and neither does older data.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::InvalidRequest(_) | UpstreamError::InvalidToken(_)))
    }

    /// Returns whether a stream that has begun may wait until the failure is over.
    fn is_ridden_out(&self) -> bool {
        self.is_throttle() || matches!(self, Self::Upstream(UpstreamError::Overloaded))
    }

    /// Returns whether all queries of the target are concerned.
    fn is_throttle(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::Throttled(_) | UpstreamError::CredentialsThrottled(_)))
    }
}

/// A failure as one reader meets it; all who wait for the same page meet the same.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the listing could not be read")]
pub struct ReadError {
    /// What failed.
    #[source]
    pub error: Arc<ListingError>,
    /// How long upstream will not be asked again; absent where waiting is of no use.
    pub retry_after: Option<Duration>,
    /// Whether its reader waited for a fetch that failed, rather than for none.
    pub has_waited: bool,
}

impl From<ListingError> for ReadError {
    fn from(error: ListingError) -> Self {
        Self { error: Arc::new(error), retry_after: None, has_waited: false }
    }
}

/// Locks a mutex, poisoned or not: nothing that a panic could leave half done is kept under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
