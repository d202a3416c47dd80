//! The records of a walk of one query, handed out in pages of any size: a walk upstream, a cursor into it, a reader.

mod cursor;
mod reader;
mod walk;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use self::{cursor::Cursor, walk::Walk};
pub use self::{
    cursor::InvalidCursor,
    reader::{Page, Reader},
};
use crate::{
    model::Query,
    upstream::{Upstream, UpstreamError},
};

/// The bounds of listings; the `[listing]` table of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a cursor may be used after it was handed out.
    #[serde(with = "humantime_serde")]
    pub cursor_lifetime: Duration,
    /// The most upstream pages that a walk may have.
    pub page_cap: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { cursor_lifetime: Duration::from_hours(1), page_cap: 10_000 }
    }
}

/// Why a listing could not be read, or not further.
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
}

/// Opens listings of queries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Listings {
    upstream: Arc<dyn Upstream>,
    config: Config,
}

impl Config {
    /// Puts listings in front of an upstream.
    pub fn build(self, upstream: Arc<dyn Upstream>) -> Listings {
        Listings { upstream, config: self }
    }
}

impl Listings {
    /// Opens a reader at the start of the query's listing, or where `cursor` leads. AWS is asked when the reader reads.
    ///
    /// # Errors
    /// [`InvalidCursor`].
    pub fn open(&self, query: &Query, cursor: Option<&str>) -> Result<Reader, InvalidCursor> {
        let fingerprint = query.fingerprint();
        let cursor = match cursor {
            None => Cursor::start(),
            Some(text) => Cursor::parse(text, &fingerprint, SystemTime::now(), self.config.cursor_lifetime)?,
        };
        let walk = Walk::new(Arc::clone(&self.upstream), query.filters().clone(), self.config.page_cap);
        Ok(Reader::new(walk, fingerprint, cursor))
    }
}
