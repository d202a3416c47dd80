use std::{collections::VecDeque, fmt, mem, sync::Arc, time::SystemTime};

use bytes::Bytes;
use tokio::time::{self, Instant};

use super::{
    Came, InvalidCursor, Listings, OpenError, Outcome, Provenance, ReadError, Rendered, Target,
    cursor::{self, Cursor},
    inside::{Inside, Run},
    pages::KeptPage,
    position::Taken,
};
use crate::{
    model::{Freshness, Query},
    source::{Sent, Wall},
};

/// Reads a listing onwards, in pages of any size.
#[derive(Debug)]
pub struct Reader {
    listings: Listings,
    target: Arc<Target>,
    query: Query,
    taken: Arc<Taken>,
    freshness: Freshness,
    mode: Mode,
    /// Where it begins; none at the start.
    cursor: Option<Cursor>,
    /// Where it is, once it is in a listing.
    pub(super) inside: Option<Inside>,
    arrived: Option<Instant>,
    /// Whether it gave a page.
    has_begun: bool,
    is_at_end: bool,
    /// Whether its first outcome was counted.
    is_counted: bool,
}

/// What a reader reads for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A page, fetched for itself alone.
    Page,
    /// Page after page: further ones are fetched ahead, and once it has begun it waits while AWS throttles.
    Stream,
}

/// A run of a listing's records, and where to go on behind it.
#[derive(Clone)]
pub struct Page {
    /// The encoded records, each part of which holds whole ones (see [`crate::model::Records`]).
    pub records: VecDeque<Bytes>,
    /// The text of the cursor behind the page.
    pub cursor: Bytes,
    /// The same as messages, as [`Render`](super::Render) wrote their heads, where the page is just what one fetch brought.
    pub rendered: Option<Arc<Rendered>>,
    /// How the records came.
    pub provenance: Provenance,
    /// The ID under which AWS knows the oldest answer that they are of.
    pub aws_request_id: Option<Arc<str>>,
}

/// Shows how many bytes there are, never what: records hold addresses and host names.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.records.iter().map(Bytes::len).sum::<usize>();
        write!(f, "Page({bytes} bytes, {:?})", self.provenance)
    }
}

impl Listings {
    /// Opens a reader at the start of the query's listing, or where `cursor` leads: there it stays on its own walk, and
    /// `freshness` does not matter. AWS is asked when the reader reads, if at all.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, query: &Query, freshness: Freshness, cursor: Option<&str>) -> Result<Reader, OpenError> {
        let store = self.store();
        let target = self.target(query.target()).ok_or(OpenError::UnknownTarget)?;
        let lifetime = store.config.cursor_lifetime + store.config.cursor_slack();
        let parse = |text| Cursor::parse(text, target.fingerprint(query), (store.wall)(), lifetime);
        let cursor = cursor.map(parse).transpose()?;
        Ok(Reader {
            listings: self.clone(),
            target: Arc::clone(target),
            taken: Arc::default(),
            query: query.clone(),
            freshness: if cursor.is_none() { freshness } else { Freshness::default() },
            mode: Mode::Page,
            cursor,
            inside: None,
            arrived: None,
            has_begun: false,
            is_at_end: false,
            is_counted: false,
        })
    }
}

/// The fingerprint of the query that a cursor belongs to.
///
/// # Errors
/// [`InvalidCursor::Malformed`].
pub fn belongs_to(cursor: &str) -> Result<Vec<u8>, InvalidCursor> {
    cursor::fingerprint(cursor).ok_or(InvalidCursor::Malformed)
}

impl Reader {
    /// Has upstream pages fetched ahead of this reader, as many as the configuration says, and lets it wait while AWS
    /// throttles, once it has begun.
    #[must_use]
    pub fn streaming(self) -> Self {
        Self { mode: Mode::Stream, ..self }
    }

    /// Reads for a call that reads from others, too: it is given up only if it takes nothing from any of them.
    #[must_use]
    pub fn taking(self, taken: &Arc<Taken>) -> Self {
        Self { taken: Arc::clone(taken), ..self }
    }

    /// Reads the next `limit` records, fewer only at the end or where they would make a message that clients refuse, and
    /// waits for no fetch beyond what that takes. After a failure the reader stands where it stood. Where a first page fails, one that is stale takes its place if the
    /// reader allows it.
    ///
    /// # Errors
    /// [`ReadError`], shared with all who waited for the same.
    pub async fn read(&mut self, limit: usize) -> Result<Page, ReadError> {
        let is_first = self.cursor.is_none() && self.inside.as_ref().is_none_or(Inside::is_at_start);
        let mut outcome = self.try_read(limit).await;
        if let Err(failed) = &outcome
            && is_first
            && !failed.error.is_refusal()
            && let Some(inside) = self.stale()
        {
            self.inside = Some(inside);
            outcome = self.try_read(limit).await;
        }
        let mut end = None;
        while let Err(failed) = &outcome
            && let Some(retry_at) = self.retry_at(failed)
            && retry_at < *end.get_or_insert_with(|| Instant::now() + self.listings.store().config.throttle_patience)
        {
            time::sleep_until(retry_at).await;
            outcome = self.try_read(limit).await;
        }
        if !mem::replace(&mut self.is_counted, true) {
            let outcome = outcome.as_ref().map_or_else(Outcome::from, |page| Outcome::from(&page.provenance));
            self.target.metrics.readers.add(outcome);
            if let Some(inside) = &self.inside {
                inside.seat.listing().readers.add(outcome);
            }
        }
        self.has_begun |= outcome.is_ok();
        outcome
    }

    /// A place in what is stale, where the reader allows that in place of an error.
    fn stale(&self) -> Option<Inside> {
        let failed = self.inside.as_ref();
        Inside::stale(failed, self.listings.store(), &self.target, &self.query, self.freshness, &self.taken)
    }

    /// When a stream that has begun goes on after AWS throttled it.
    fn retry_at(&self, failed: &ReadError) -> Option<Instant> {
        let is_ridden_out = self.mode == Mode::Stream && self.has_begun && failed.error.is_ridden_out();
        failed.retry_after.filter(|_| is_ridden_out).map(|retry_after| Instant::now() + retry_after)
    }

    /// Whether the listing is known to have no more records.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    async fn try_read(&mut self, limit: usize) -> Result<Page, ReadError> {
        let store = self.listings.store();
        let mut now = Instant::now();
        let arrived = *self.arrived.get_or_insert(now);
        let inside = match (&mut self.inside, &self.cursor) {
            (Some(inside), _) => inside,
            (_, Some(Cursor::End(as_of))) => {
                self.is_at_end = true;
                return Ok(self.behind_the_end(*as_of));
            }
            (none, Some(Cursor::At(place))) => {
                none.insert(Inside::resume(store, &self.target, &self.query, place, &self.taken)?)
            }
            (none, None) => none.insert(Inside::join(store, &self.target, &self.query, self.freshness, &self.taken)?),
        };
        let read_ahead = if self.mode == Mode::Stream { store.config.read_ahead } else { 0 };
        let Run { records, whole, oldest, came, index, offset, .. } = inside.run(limit, read_ahead, store).await?;
        if came != Came::Hit {
            now = Instant::now();
        }
        let listing = inside.seat.listing();
        let is_empty = oldest.is_none() && index == 0;
        let oldest = oldest.map(|page| (page.sent, page.origin.aws_request_id.clone()));
        let oldest = oldest.or_else(|| listing.last().map(|(sent, origin)| (sent, origin.aws_request_id)));
        let (oldest, aws_request_id) = oldest.unwrap_or_else(|| (Sent::now(store.wall), None));
        let max_age = self.freshness.max_age.unwrap_or(listing.ttl);
        let max_age = if is_empty { max_age.min(store.config.negative_ttl) } else { max_age };
        let provenance = Provenance {
            as_of: oldest.as_of,
            age: now.saturating_duration_since(oldest.at),
            max_age,
            is_stale: oldest.at < arrived && arrived - oldest.at >= max_age,
            came,
            is_forced: inside.is_forced,
        };
        let is_at_end = inside.seat.rest(index, now);
        // A page that stands ready has the cursor that was written when it came: it must be young, and right still.
        let is_ready = |page: &Arc<KeptPage>| page.is_last == is_at_end && provenance.age < store.config.cursor_slack();
        let rendered = whole.filter(is_ready).map(|page| Arc::clone(&page.rendered));
        let cursor = match &rendered {
            Some(rendered) => rendered.cursor(),
            None => written(&self.target, &self.query, &listing.place(index, offset)?, store.wall),
        };
        (inside.index, inside.offset, inside.sought) = (index, offset, None);
        self.is_at_end = is_at_end;
        Ok(Page { records, cursor, rendered, provenance, aws_request_id })
    }

    /// The page of a reader whose cursor stands at the end; `as_of` is that of the answer which said so.
    fn behind_the_end(&self, as_of: SystemTime) -> Page {
        let wall = self.listings.store().wall;
        let (age, max_age) = (wall().duration_since(as_of).unwrap_or_default(), self.target.ttl);
        let provenance =
            Provenance { as_of, age, max_age, is_stale: age >= max_age, came: Came::Hit, is_forced: false };
        let cursor = written(&self.target, &self.query, &Cursor::End(as_of), wall);
        Page { records: VecDeque::new(), cursor, rendered: None, provenance, aws_request_id: None }
    }
}

fn written(target: &Target, query: &Query, cursor: &Cursor, wall: Wall) -> Bytes {
    cursor.to_text(target.fingerprint(query), wall()).into()
}
