//! The port through which pages are fetched, and the decorators that every adapter behind it is wrapped in.
//!
//! The port belongs to those who ask: it says what they need to know of a page, and nothing of AWS's SDK. An adapter
//! ([`crate::aws`]) makes one attempt. [`Paced`] bounds how often it is asked, [`Retried`] makes further attempts,
//! [`Traced`] shows each fetch as a span; `app` puts them around the adapter in this order, the last of them outermost.

mod error;
mod origin;
mod pace;
mod pacer;
mod retry;
mod trace;

use std::{fmt::Debug, time::SystemTime};

use futures_util::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use tokio::time::Instant;

pub(crate) use self::{
    error::cut,
    pacer::{Pacer, QueueFull},
};
pub use self::{
    error::{AwsError, Cause, FetchError, MAX_ADVICE, UpstreamError},
    origin::Origin,
    pace::Paced,
    retry::{Retried, RetryPolicy},
    trace::Traced,
};
use crate::model::{Filters, Records, Scope};

/// A target's nodes, fetched a page at a time.
pub trait Source: Debug + Send + Sync + 'static {
    /// Waits until a page may be fetched, so that the target is not asked too fast. Dropping the future leaves the
    /// queue. A source without a pace admits everybody at once.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`], if the queue is full or the wait too long.
    fn admit(&self, _priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>> {
        future::ready(Ok(())).boxed()
    }

    /// Fetches a page, once it was admitted. Ends within bounds of its own, whatever the caller's deadline.
    ///
    /// # Errors
    /// [`FetchError`], if there is no page after all attempts.
    fn page<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>>;

    /// Returns how fast the source is asked. Each decorator adds what it knows; of a source without any nothing is
    /// known.
    fn pace(&self) -> Pace {
        Pace::default()
    }
}

/// A request for one page.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The conditions that nodes must meet.
    pub filters: &'a Filters,
    /// The token that leads to the page; absent for the first one.
    pub token: Option<&'a str>,
    /// How many pages of the walk lie before the page.
    pub number: u32,
    /// Whether somebody waits for the page. It holds for each attempt.
    pub priority: Priority,
    /// When the page must have been sent at the earliest: an older one, which a source may have from elsewhere, is of
    /// no use to whoever asks. Absent, its age does not matter.
    pub not_before: Option<Instant>,
}

/// The order in which fetches of a target are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the page.
    Interactive,
    /// Nobody waits: stale data is being replaced.
    Background,
}

/// The pace at which a target is asked, and what its retries came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Requests a second, now.
    pub rate: f64,
    /// The most that the rate may be.
    pub max_rate: f64,
    /// How many fetches wait to be admitted.
    pub waiting: usize,
    /// How often a request was sent again so far, after a transient failure.
    pub retries: u64,
    /// How many fetches are between two attempts, or in an attempt that is not their first.
    pub retrying: usize,
    /// How many nodes had invalid characters or timestamps so far, which were replaced or left out.
    pub repaired: u64,
}

/// One answer from upstream.
#[derive(Debug, Clone)]
pub struct UpstreamPage {
    /// The records in the order AWS gave them: 50 or fewer, possibly none though more follow; of servers that ignore
    /// how many were asked for, any number.
    pub records: Records,
    /// Where the next page is; absent at the end of the walk.
    pub next_token: Option<String>,
    /// When AWS was asked. The age of the page counts from here, whoever asked, and however long ago.
    pub sent: Sent,
    /// Which answer it is.
    pub origin: Origin,
}

/// The time at which a request was sent: by the clock that measures ages, and by the one that callers know.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// By tokio's clock.
    pub at: Instant,
    /// By the wall clock.
    pub as_of: SystemTime,
}

impl Sent {
    /// Returns the present, with the wall clock as `wall` has it.
    #[must_use]
    pub fn now(wall: Wall) -> Self {
        Self { at: Instant::now(), as_of: wall() }
    }
}

/// Returns the wall clock's time, which callers know. Ages and waits go by tokio's clock.
pub type Wall = fn() -> SystemTime;

/// The place that a source asks, and as whom.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The AWS region.
    pub region: String,
    /// What answers depend on beside the filters, the same in every process that is configured so.
    pub scope: Scope,
    /// Whose credentials ask, for people.
    pub signed_by: String,
}
