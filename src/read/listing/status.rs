//! Listings as administrators see them.

use std::time::Duration;

use tokio::time::Instant;

use super::{Listing, Listings, phase::Phase};
use crate::{
    model::Query,
    read::{Counts, lock},
};

/// The status of a listing at a moment.
#[derive(Debug, Clone)]
pub struct ListingStatus {
    /// What it lists.
    pub query: Query,
    /// Whether all of it is there, or more may come.
    pub state: ListingState,
    /// Whether its walk goes on right now.
    pub is_advancing: bool,
    /// The time since its first fetch was sent; none where that is still to come.
    pub age: Option<Duration>,
    /// How long it is fresh for readers who do not say.
    pub ttl: Duration,
    /// The bytes of memory that it takes.
    pub bytes: usize,
    /// How many upstream pages with records it has had so far.
    pub pages: usize,
    /// How many read it.
    pub readers: usize,
    /// How long its slowest reader has taken nothing.
    pub slowest: Duration,
    /// What its readers came to.
    pub counts: Counts,
}

/// The progress of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingState {
    /// More may come, if only after a hold-off.
    Open,
    /// It has all.
    Complete,
    /// It broke off for good.
    Broken,
}

impl ListingState {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Open, Self::Complete, Self::Broken];

    /// Returns the name of the state in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Broken => "broken",
        }
    }
}

impl Listings {
    /// Returns the status of every listing that can be found, the most recently used first, each at a moment of its
    /// own.
    #[must_use]
    pub fn status(&self) -> Vec<ListingStatus> {
        let now = Instant::now();
        let listings = self.store().index().all();
        listings.iter().map(|listing| listing.status(now)).collect()
    }
}

impl Listing {
    fn status(&self, now: Instant) -> ListingStatus {
        let state = lock(&self.state);
        let pages = state.pages.len();
        ListingStatus {
            query: self.query.query.clone(),
            state: match state.phase {
                Phase::Idle | Phase::Queued | Phase::Fetching(_) => ListingState::Open,
                Phase::Complete => ListingState::Complete,
                Phase::Broken(_) => ListingState::Broken,
            },
            is_advancing: state.phase.is_advancing(),
            age: state.age(now),
            ttl: self.ttl,
            bytes: state.charge.bytes(),
            pages,
            readers: state.demands.len(),
            slowest: state.demands.iter().map(|(_, demand)| demand.idle(pages, now)).max().unwrap_or_default(),
            counts: self.readers.counts(),
        }
    }
}
