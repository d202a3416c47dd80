//! How a question about nodes is answered, from memory or upstream: freshness, failures and their hold-offs, sharing,
//! memory.
//!
//! [`Listings`] is the way in: it opens a [`Reader`] of a query, which shares one walk upstream with any number of
//! others.

mod config;
mod error;
mod hold_off;
mod listing;
mod lock;
mod metrics;
mod provenance;
mod target;

use self::lock::lock;
pub use self::{
    config::Config,
    error::{ListingError, ReadError},
    listing::{
        Head, InvalidCursor, ListingState, ListingStatus, Listings, OpenError, Page, ReadClock, Reader, Render,
        Rendered, WholePage, belongs_to,
    },
    metrics::{Counts, Metrics, Outcome},
    provenance::{Provenance, Served},
    target::{LastError, Target, TargetState},
};
