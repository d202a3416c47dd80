use std::time::{Duration, SystemTime};

/// How old a page is, and how it came.
#[derive(Debug, Clone, Copy)]
pub struct Provenance {
    /// When the oldest fetch that it came from was sent.
    pub as_of: SystemTime,
    /// How long ago that was.
    pub age: Duration,
    /// The age at which it is no longer fresh to its reader.
    pub max_age: Duration,
    /// Whether it was no longer fresh when its reader arrived.
    pub is_stale: bool,
    /// How it was served.
    pub served: Served,
    /// Whether the reader's `max_age` refused what is fresh to others.
    pub is_forced: bool,
}

/// How a page was served, in order of effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Served {
    /// It was there.
    Hit,
    /// Its reader waited for a fetch that another reader had caused.
    Coalesced,
    /// Its reader caused a fetch.
    Miss,
}
