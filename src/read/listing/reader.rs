use std::{collections::VecDeque, fmt, mem, sync::Arc, time::SystemTime};

use bytes::Bytes;
use tokio::time::{self, Instant};

use super::{
    Listings,
    asked::Asked,
    cursor::{self, Cursor, InvalidCursor, OpenError},
    demand::ReadClock,
    reading::{Gathered, Look, Next, Want},
    render::Rendered,
    subscription::Subscription,
};
use crate::{
    model::{Freshness, Query},
    read::{Outcome, Provenance, ReadError, Served},
    source::Sent,
};

/// Reads a listing onwards, in pages of any size.
#[derive(Debug)]
pub struct Reader {
    asked: Asked,
    mode: Mode,
    /// Where it begins; none at the start.
    cursor: Option<Cursor>,
    /// Where it is, once it is in a listing.
    pub(super) subscription: Option<Subscription>,
    arrived: Option<Instant>,
    /// Whether it gave a page.
    has_begun: bool,
    is_at_end: bool,
    /// Whether its first outcome was counted.
    is_counted: bool,
}

/// The kind of call that a reader reads for.
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
    /// The same as messages, as [`Render`](super::Render) wrote their heads, where the page is just what one fetch
    /// brought.
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
    /// [`OpenError`], if there is no such target or the cursor leads nowhere.
    pub fn open(&self, query: &Query, freshness: Freshness, cursor: Option<&str>) -> Result<Reader, OpenError> {
        let store = self.store();
        let target = self.target(query.target()).ok_or(OpenError::UnknownTarget)?;
        let lifetime = store.config.cursor_lifetime + store.config.cursor_slack();
        let parse = |text| Cursor::parse(text, target.fingerprint(query), (store.wall)(), lifetime);
        let cursor = cursor.map(parse).transpose()?;
        let freshness = if cursor.is_none() { freshness } else { Freshness::default() };
        let target = Arc::clone(target);
        let query = query.clone();
        let clock = Arc::default();
        Ok(Reader {
            asked: Asked { listings: self.clone(), target, query, freshness, clock },
            mode: Mode::Page,
            cursor,
            subscription: None,
            arrived: None,
            has_begun: false,
            is_at_end: false,
            is_counted: false,
        })
    }
}

/// Returns the fingerprint of the query that a cursor belongs to.
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
    pub fn with_clock(mut self, clock: &Arc<ReadClock>) -> Self {
        self.asked.clock = Arc::clone(clock);
        self
    }

    /// Reads the next `limit` records, fewer only at the end or where they would make a message that clients refuse,
    /// and waits for no fetch beyond what that takes. After a failure the reader stands where it stood. Where a first
    /// page fails, one that is stale takes its place if the reader allows it.
    ///
    /// # Errors
    /// [`ReadError`], shared with all who waited for the same.
    pub async fn read(&mut self, limit: usize) -> Result<Page, ReadError> {
        let is_first = self.cursor.is_none() && self.subscription.as_ref().is_none_or(Subscription::is_at_start);
        let mut outcome = self.try_read(limit).await;
        if let Err(failed) = &outcome
            && is_first
            && !failed.error.is_refusal()
            && let Some(stale) = self.read_stale(limit).await
        {
            outcome = stale;
        }
        let mut end = None;
        while let Err(failed) = &outcome
            && let Some(retry_at) = self.retry_at(failed)
            && retry_at < *end.get_or_insert_with(|| Instant::now() + self.asked.store().config.throttle_patience)
        {
            time::sleep_until(retry_at).await;
            outcome = self.try_read(limit).await;
        }
        if !mem::replace(&mut self.is_counted, true) {
            let outcome = outcome.as_ref().map_or_else(Outcome::from, |page| Outcome::from(&page.provenance));
            self.asked.target.metrics.readers.add(outcome);
            if let Some(subscription) = &self.subscription {
                subscription.listing().readers.add(outcome);
            }
        }
        self.has_begun |= outcome.is_ok();
        outcome
    }

    /// Returns whether the listing is known to have no more records.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Returns when a stream that has begun goes on after AWS throttled it.
    fn retry_at(&self, failed: &ReadError) -> Option<Instant> {
        let is_ridden_out = self.mode == Mode::Stream && self.has_begun && failed.error.is_ridden_out();
        failed.retry_after.filter(|_| is_ridden_out).map(|retry_after| Instant::now() + retry_after)
    }

    async fn try_read(&mut self, limit: usize) -> Result<Page, ReadError> {
        let now = Instant::now();
        let want = self.want(limit);
        self.arrived.get_or_insert(now);
        let look = match (&mut self.subscription, &self.cursor) {
            (Some(subscription), _) => subscription.read(want, self.asked.store(), now),
            (None, Some(Cursor::End(as_of))) => {
                self.is_at_end = true;
                return Ok(self.asked.behind_the_end(*as_of));
            }
            (none, Some(Cursor::At(point))) => {
                let (subscription, look) = self.asked.resume(point, want, now)?;
                *none = Some(subscription);
                look
            }
            (none, None) => {
                let (subscription, look) = self.asked.join(want, now)?;
                *none = Some(subscription);
                look
            }
        };
        self.page(look, now).await
    }

    /// Reads what is stale in place of an error, if there is any and the reader allows that.
    async fn read_stale(&mut self, limit: usize) -> Option<Result<Page, ReadError>> {
        let now = Instant::now();
        let failed = self.subscription.as_ref().map(Subscription::listing);
        let (subscription, look) = self.asked.join_stale(failed.map(|listing| &**listing), self.want(limit), now)?;
        self.subscription = Some(subscription);
        Some(self.page(look, now).await)
    }

    fn want(&self, limit: usize) -> Want {
        let ahead = if self.mode == Mode::Stream { self.asked.store().config.read_ahead } else { 0 };
        Want { limit, ahead }
    }

    /// Waits for what the look lacked, and makes a page of what was gathered.
    async fn page(&mut self, look: Result<Look, ReadError>, mut now: Instant) -> Result<Page, ReadError> {
        let store = self.asked.store();
        #[expect(clippy::expect_used, reason = "whoever looked at a listing is subscribed to it")]
        let subscription = self.subscription.as_mut().expect("a look is a subscription's");
        let gathered = match look? {
            Look::Gathered(gathered) => gathered,
            Look::Missing(reading) => {
                let gathered = subscription.wait(reading, store).await?;
                now = Instant::now();
                gathered
            }
        };
        let Gathered { records, next, oldest, served, is_empty, is_at_end } = gathered;
        self.is_at_end = is_at_end;
        let (oldest, aws_request_id) = oldest.unwrap_or_else(|| (Sent::now(store.wall), None));
        let max_age = self.asked.freshness.max_age.unwrap_or(subscription.listing().ttl);
        let max_age = if is_empty { max_age.min(store.config.negative_ttl) } else { max_age };
        let arrived = self.arrived.unwrap_or(now);
        let provenance = Provenance {
            as_of: oldest.as_of,
            age: now.saturating_duration_since(oldest.at),
            max_age,
            is_stale: oldest.at < arrived && arrived - oldest.at >= max_age,
            served,
            is_forced: subscription.is_forced,
        };
        let (cursor, rendered) = match next {
            Next::Rendered(page) => (page.cursor(), Some(page)),
            Next::At(cursor) => (self.asked.write(&cursor), None),
        };
        Ok(Page { records, cursor, rendered, provenance, aws_request_id })
    }
}

impl Asked {
    /// Writes a cursor as the text that callers are given.
    fn write(&self, cursor: &Cursor) -> Bytes {
        cursor.to_text(self.target.fingerprint(&self.query), (self.store().wall)()).into()
    }

    /// Returns the page of a reader whose cursor stands at the end; `as_of` is that of the answer which said so.
    fn behind_the_end(&self, as_of: SystemTime) -> Page {
        let age = (self.store().wall)().duration_since(as_of).unwrap_or_default();
        let max_age = self.target.ttl;
        let served = Served::Hit;
        let provenance = Provenance { as_of, age, max_age, is_stale: age >= max_age, served, is_forced: false };
        let cursor = self.write(&Cursor::End(as_of));
        Page { records: VecDeque::new(), cursor, rendered: None, provenance, aws_request_id: None }
    }
}
