use std::{
    fmt, mem,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Listings, ReadError,
    cursor::{Cursor, Place},
    index::Asked,
    listings::{Joined, Store},
    pages::Sent,
    seat::Seat,
};
use crate::model::Freshness;

/// Reads a listing onwards, in pages of any size.
#[derive(Debug)]
pub struct Reader {
    listings: Listings,
    asked: Asked,
    freshness: Freshness,
    arrived: Instant,
    read_ahead: usize,
    /// Where to go on; none before the first page of a reader that began at the start.
    cursor: Option<Cursor>,
    /// Where that is in a listing, once there is one.
    pub(super) inside: Option<Inside>,
    is_counted: bool,
}

#[derive(Debug)]
pub(super) struct Inside {
    pub(super) seat: Seat,
    /// The page and the record in it that come next.
    index: usize,
    offset: usize,
    /// The place that has to be found again in the first page.
    sought: Option<Place>,
    is_forced: bool,
}

/// A run of a listing's records, and where to go on behind it.
#[derive(Clone)]
pub struct Page {
    /// The text of the cursor behind the page, all of it in the first part, directly followed by the encoded records, whole
    /// ones in each part (see [`crate::model::Records`]).
    pub parts: Vec<Bytes>,
    /// The length of that text.
    pub cursor_len: usize,
    /// How the records came.
    pub provenance: Provenance,
}

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
    /// How it came.
    pub came: Came,
    /// Whether the reader's `max_age` refused what is fresh to others.
    pub is_forced: bool,
}

/// How a page came, in order of effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Came {
    /// It was there.
    Hit,
    /// Its reader waited for a fetch that another reader had caused.
    Coalesced,
    /// Its reader caused a fetch.
    Miss,
}

/// Tells how many bytes there are, never what: records hold addresses and host names.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.parts.iter().map(Bytes::len).sum::<usize>();
        write!(f, "Page({bytes} bytes, {:?})", self.provenance)
    }
}

impl Reader {
    pub(super) fn new(listings: Listings, asked: Asked, freshness: Freshness, cursor: Option<Cursor>) -> Self {
        let freshness = if cursor.is_none() { freshness } else { Freshness::default() };
        let arrived = Instant::now();
        Self { listings, asked, freshness, arrived, read_ahead: 0, cursor, inside: None, is_counted: false }
    }

    /// Has upstream pages fetched ahead of this reader, as many as the configuration says.
    #[must_use]
    pub fn reading_ahead(self) -> Self {
        let read_ahead = self.listings.store().config.read_ahead;
        Self { read_ahead, ..self }
    }

    /// Reads the next `limit` records, fewer only at the end, and waits for no fetch beyond what that takes. After a
    /// failure the reader stands where it stood. Where a first page fails, one that is stale takes its place if the
    /// reader allows it.
    ///
    /// # Errors
    /// [`ReadError`], shared with all who waited for the same.
    pub async fn read(&mut self, limit: usize) -> Result<Page, ReadError> {
        let is_first = self.cursor.is_none();
        let mut outcome = self.try_read(limit).await;
        if let Err(failed) = &outcome
            && is_first
            && !failed.error.is_refusal()
            && let Some(seat) = self.listings.store().stale(&self.asked, self.freshness)
        {
            self.inside = Some(Inside { seat, index: 0, offset: 0, sought: None, is_forced: false });
            outcome = self.try_read(limit).await;
        }
        if !mem::replace(&mut self.is_counted, true) {
            self.listings.metrics().count(outcome.as_ref().ok().map(|page| &page.provenance));
        }
        outcome
    }

    /// Where to go on, as text for callers; at the end too, where it leads to the end at once.
    #[must_use]
    pub fn cursor(&self) -> String {
        let start = Cursor::At(Place::default());
        self.cursor.as_ref().unwrap_or(&start).to_text(&self.asked.fingerprint, SystemTime::now())
    }

    /// Whether the listing is known to have no more records.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        matches!(self.cursor, Some(Cursor::End(_)))
    }

    async fn try_read(&mut self, limit: usize) -> Result<Page, ReadError> {
        let store = Arc::clone(self.listings.store());
        if let Some(Cursor::End(as_of)) = self.cursor {
            return Ok(self.behind_the_end(as_of));
        }
        let inside = match &mut self.inside {
            Some(inside) => inside,
            none => none.insert(enter(&store, &self.asked, self.freshness, self.cursor.as_ref())?),
        };
        inside.seat.wake(store.config.stall_timeout)?;
        let (mut index, mut offset) = (inside.index, inside.offset);
        let mut sought = inside.sought.as_ref();
        let (mut records, mut oldest, mut came) = (Vec::new(), None::<Sent>, Came::Hit);
        let mut ready = None;
        let mut left = limit;
        while left > 0 {
            let (page, how) = inside.seat.page(index, self.read_ahead, &store).await?;
            came = came.max(how);
            let Some(page) = page else { break };
            if let Some(place) = sought.take().filter(|place| place.pages_before == page.step.number) {
                offset = place.find_again(&page.records);
            }
            let end = page.records.len().min(offset + left);
            if offset < end {
                let is_alone = offset == 0 && end == page.records.len() && records.is_empty();
                ready = is_alone.then(|| Arc::clone(&page));
                records.push(page.records.slice(offset..end));
                left -= end - offset;
                oldest = oldest.filter(|oldest| oldest.at <= page.sent.at).or(Some(page.sent));
            }
            (index, offset) = if end == page.records.len() { (index + 1, 0) } else { (index, end) };
        }
        let listing = inside.seat.listing();
        self.cursor = Some(listing.place(index, offset));
        let oldest = oldest.or_else(|| listing.last()).unwrap_or_else(Sent::now);
        let max_age = self.freshness.max_age.unwrap_or(listing.ttl);
        (inside.index, inside.offset, inside.sought) = (index, offset, None);
        inside.seat.rest();
        let provenance = Provenance {
            as_of: oldest.as_of,
            age: oldest.at.elapsed(),
            max_age,
            is_stale: oldest.at < self.arrived && self.arrived - oldest.at >= max_age,
            came,
            is_forced: inside.is_forced,
        };
        // The page as a whole stands ready with the cursor behind it, which was written when the page came.
        let is_young = provenance.age < store.config.cursor_slack();
        Ok(match ready.filter(|_| is_young) {
            Some(page) => {
                Page { parts: vec![page.records.with_head()], cursor_len: page.records.head_len(), provenance }
            }
            None => self.page(records, provenance),
        })
    }

    /// A page with the cursor behind it.
    fn page(&self, records: Vec<Bytes>, provenance: Provenance) -> Page {
        let cursor = Bytes::from(self.cursor());
        let cursor_len = cursor.len();
        Page { parts: [cursor].into_iter().chain(records).collect(), cursor_len, provenance }
    }

    /// The page of a reader whose cursor stands at the end; `as_of` is that of the answer which said so.
    fn behind_the_end(&self, as_of: SystemTime) -> Page {
        let max_age = self.listings.store().config.ttl;
        let age = as_of.elapsed().unwrap_or_default();
        let is_stale = age >= max_age;
        self.page(Vec::new(), Provenance { as_of, age, max_age, is_stale, came: Came::Hit, is_forced: false })
    }
}

/// Finds the listing that the reader reads, and its place in it.
fn enter(
    store: &Arc<Store>,
    asked: &Asked,
    freshness: Freshness,
    cursor: Option<&Cursor>,
) -> Result<Inside, ReadError> {
    let (joined, sought) = match cursor {
        Some(Cursor::At(place)) => {
            let joined = store.resume(asked, place)?;
            let sought = joined.is_elsewhere.then(|| place.clone());
            (joined, sought)
        }
        _ => (store.join(asked, freshness)?, None),
    };
    let Joined { seat, index, offset, is_forced, .. } = joined;
    Ok(Inside { seat, index, offset, sought, is_forced })
}
