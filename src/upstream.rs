//! SSM as one target sees it: the port that listings ask, and the adapter that asks AWS.

mod build_error;
mod client;
mod config;
mod convert;
mod credentials;
mod environment;
mod error;
mod http;
mod pacer;
mod process;
mod provide;
mod repair;
mod source;
mod ssm;

use std::fmt::Debug;

use futures_util::future::BoxFuture;

pub use self::{
    build_error::{AwsFilesError, BuildError},
    config::Config,
    credentials::CredentialsCache,
    error::{AwsError, Cause, MAX_ADVICE, UpstreamError},
    http::CaBundleError,
    ssm::Ssm,
};
use crate::model::{Filters, Records, Scope};

/// One target, asked a page at a time.
pub trait Upstream: Debug + Send + Sync + 'static {
    /// The AWS region that is asked.
    fn region(&self) -> &str;

    /// What its answers depend on beside the filters, the same in every process that is configured so.
    fn scope(&self) -> Scope;

    /// Whose credentials ask, for people.
    fn signed_by(&self) -> String {
        String::new()
    }

    /// How fast it is asked; nothing is known of one that is not paced.
    fn pace(&self) -> Pace {
        Pace::default()
    }

    /// Waits for a turn to fetch a page, so that the target is not asked too fast. Dropped, it gives the turn up.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`].
    fn turn(&self, priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>>;

    /// Fetches the page that `token` leads to, the first one without: 50 records or fewer, possibly none though more
    /// follow; of servers that ignore how many were asked for, any number. Ends within bounds of its own, whatever the caller's deadline.
    fn fetch<'a>(
        &'a self,
        filters: &'a Filters,
        token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<UpstreamPage, UpstreamError>>;
}

/// Who goes first where a target is asked by many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the page.
    Interactive,
    /// Nobody does: stale data is being replaced.
    Background,
}

/// How fast a target is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Requests a second, now.
    pub rate: f64,
    /// The most that the rate may be.
    pub max_rate: f64,
    /// How many fetches wait for their turn.
    pub waiting: usize,
    /// How often a request was sent again so far, after a transient failure.
    pub retries: u64,
    /// How many fetches go on though AWS failed them already.
    pub retrying: usize,
    /// How many nodes had invalid characters or timestamps so far, which were replaced or left out.
    pub repaired: u64,
}

/// One answer from upstream.
#[derive(Debug, Clone)]
pub struct UpstreamPage {
    /// The records in the order AWS gave them.
    pub records: Records,
    /// Where the next page is; absent at the end of the walk.
    pub next_token: Option<String>,
    /// The ID under which AWS knows the answer.
    pub request_id: Option<String>,
}
