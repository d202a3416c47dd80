use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    Config, Head, InvalidCursor, Metrics, ReadError, Reader, Wall,
    choice::{self, Candidate, Choice},
    cursor::{Cursor, Place},
    hold_off::{Held, HoldOff},
    index::Index,
    lock,
    pages::{Listing, Shared, Step},
    reader::Inside,
    seat::Seat,
    walk::Walk,
};
use crate::{
    model::{Freshness, Query},
    upstream::Upstream,
};

/// All listings. Cheap to clone; when the last clone and the last reader are gone, walks are cancelled.
#[derive(Debug, Clone)]
pub struct Listings {
    store: Arc<Store>,
    _stop: Arc<DropGuard>,
}

/// What listings, their readers and their walks share.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) config: Config,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) head: Head,
    pub(super) wall: Wall,
    /// Throttling concerns all queries of the target.
    pub(super) throttle: HoldOff,
    pub(super) metrics: Metrics,
    /// The bytes of all listings, those that only their readers still know included.
    pub(super) bytes: Arc<AtomicUsize>,
    /// Locked before a listing is, never after.
    index: Mutex<Index>,
    walks: TaskTracker,
    stop: CancellationToken,
}

impl Config {
    /// Puts listings in front of an upstream; `head` writes what goes before the records of a whole page, `wall` tells the
    /// time.
    pub fn build(self, upstream: Arc<dyn Upstream>, head: Head, wall: Wall) -> Listings {
        let stop = CancellationToken::new();
        let store = Arc::new(Store {
            config: self,
            upstream,
            head,
            wall,
            throttle: HoldOff::default(),
            metrics: Metrics::default(),
            bytes: Arc::default(),
            index: Mutex::default(),
            walks: TaskTracker::new(),
            stop: stop.clone(),
        });
        Listings { store, _stop: Arc::new(stop.drop_guard()) }
    }
}

impl Listings {
    /// Opens a reader at the start of the query's listing, or where `cursor` leads: there it stays on its own walk, and
    /// `freshness` does not matter. AWS is asked when the reader reads, if at all.
    ///
    /// # Errors
    /// [`InvalidCursor`].
    pub fn open(&self, query: &Query, freshness: Freshness, cursor: Option<&str>) -> Result<Reader, InvalidCursor> {
        let lifetime = self.store.config.cursor_lifetime + self.store.config.cursor_slack();
        let parse = |text| Cursor::parse(text, query.fingerprint(), (self.store.wall)(), lifetime);
        let cursor = cursor.map(parse).transpose()?;
        Ok(Reader::new(self.clone(), query.clone(), freshness, cursor))
    }

    /// What was done so far.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.store.metrics
    }

    /// The bytes of all listings.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes.load(Relaxed)
    }

    /// How many walks advance right now.
    #[must_use]
    pub fn walks(&self) -> usize {
        self.store.walks.len()
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Gives up every listing, as if memory had run out.
    #[cfg(test)]
    pub(super) fn evict_all(&self) {
        while let Some(victim) = lock(&self.store.index).remove_victim(Instant::now(), self.store.config.stall_timeout)
        {
            victim.evict();
        }
    }
}

impl Store {
    /// Seats a reader at the start of a listing that is fresh enough for it.
    ///
    /// # Errors
    /// The error that stands for an answer of upstream now.
    pub(super) fn join(self: &Arc<Self>, query: &Query, freshness: Freshness) -> Result<Inside, ReadError> {
        let now = Instant::now();
        let mut index = lock(&self.index);
        let starts = index.starts(query);
        let choice = choice::choose(&self.candidates(starts, now), freshness, self.config.max_stale);
        let chosen = match choice {
            Choice::Join(chosen) | Choice::JoinAndRefresh(chosen) => starts.get(chosen).map(Arc::clone),
            Choice::Start { .. } => None,
        };
        if !matches!(choice, Choice::Join(_)) {
            let shared = index.shared(query);
            let held = shared.map_or_else(|| self.throttle.held(now), |shared| self.held(&shared, now));
            match (held, &chosen) {
                (Some(held), None) => return Err(held.told(now)),
                (None, Some(stale)) => {
                    // At least as far as the first page: this reader reads that now.
                    let fresh = index.start(self, query, stale.reached().max(1));
                    Walk::start(&fresh, &mut lock(&fresh.state), self);
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        let listing = chosen.unwrap_or_else(|| index.start(self, query, 0));
        index.touch(&listing);
        let inside = Inside::at_start(Seat::take(&listing));
        drop(index);
        self.make_room();
        Ok(Inside { is_forced: matches!(choice, Choice::Start { is_forced: true }), ..inside })
    }

    /// Seats a reader where an earlier answer ended. Where that listing is gone, the reader begins with the page of the same
    /// token.
    ///
    /// # Errors
    /// As for [`Store::join`].
    pub(super) fn resume(self: &Arc<Self>, query: &Query, place: &Place) -> Result<Inside, ReadError> {
        let mut index = lock(&self.index);
        if let Some(listing) = index.listing(place.listing, query)
            && let Some((seat, index, offset)) = Seat::find(&listing, place)
        {
            return Ok(Inside { index, offset, ..Inside::at_start(seat) });
        }
        let sought = Some(place.clone());
        if place.token.is_none() {
            drop(index);
            return Ok(Inside { sought, ..self.join(query, Freshness::default())? });
        }
        let first = Step { token: place.token.clone(), number: place.pages_before };
        let seat = Seat::take(&index.tail(self, query, first));
        drop(index);
        self.make_room();
        Ok(Inside { sought, ..Inside::at_start(seat) })
    }

    /// Seats a reader that met an error at what is stale, if it allows that.
    pub(super) fn stale(&self, query: &Query, freshness: Freshness) -> Option<Inside> {
        let mut index = lock(&self.index);
        let starts = index.starts(query);
        let usable = choice::usable(&self.candidates(starts, Instant::now()), freshness, self.config.max_stale)?;
        let listing = starts.get(usable).map(Arc::clone)?;
        index.touch(&listing);
        Some(Inside::at_start(Seat::take(&listing)))
    }

    fn candidates(&self, starts: &[Arc<Listing>], now: Instant) -> Vec<Candidate> {
        starts.iter().map(|listing| listing.candidate(now, &self.config)).collect()
    }

    /// The error that stands for an answer of upstream now.
    pub(super) fn held(&self, shared: &Shared, now: Instant) -> Option<Held> {
        self.throttle.held(now).or_else(|| shared.hold_off.held(now))
    }

    /// Gives up listings until all are within bounds: the least recently used that nobody reads, or else the one with the
    /// slowest reader.
    pub(super) fn make_room(&self) {
        while self.bytes.load(Relaxed) > self.config.max_bytes {
            let Some(victim) = lock(&self.index).remove_victim(Instant::now(), self.config.stall_timeout) else {
                return;
            };
            victim.evict();
            self.metrics.count_eviction();
        }
    }

    /// Runs a walk to its end, or until all is over.
    pub(super) fn spawn(&self, walk: impl Future<Output = ()> + Send + 'static) {
        self.walks.spawn(self.stop.clone().run_until_cancelled_owned(walk));
    }
}
