use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::setting::{InvalidSetting, bounded, positive, positive_bounded, require};

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
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        let share = f64::from(self.jitter_percent.min(100)) / 100.0;
        time.mul_f64(1.0 + share * (2.0 * fastrand::f64() - 1.0))
    }

    /// Returns how long before it is handed out a cursor may be written.
    pub(super) fn cursor_slack(&self) -> Duration {
        self.cursor_lifetime / 10
    }

    pub(super) fn listing_cap(&self) -> usize {
        self.max_listing_bytes.unwrap_or(self.max_bytes / 4)
    }
}
