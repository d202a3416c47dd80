//! How a reader comes into a listing, and what it takes from where it is.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Came, Config, ReadError, Target,
    choice::{self, Candidate, Choice},
    cursor::Place,
    listings::Store,
    lock,
    pages::{KeptPage, Listing, Step},
    position::Taken,
    seat::Seat,
    walk::Walk,
};
use crate::model::{Freshness, Query};

/// The most bytes of records in a page of more than one. Most clients refuse messages over 4 MiB unless they are
/// configured not to, and would refuse the same page for ever; half a mebibyte is left for the head and the cursor.
pub(super) const MAX_BYTES: usize = 7 << 19;

/// Where a reader is in a listing.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) seat: Seat,
    /// The page and the record in it that come next.
    pub(super) index: usize,
    pub(super) offset: usize,
    /// The place that has to be found again in the first page.
    pub(super) sought: Option<Place>,
    /// Whether the reader's `max_age` refused what is fresh to others.
    pub(super) is_forced: bool,
}

/// Records one after the other, across upstream pages.
pub(super) struct Run {
    pub(super) records: VecDeque<Bytes>,
    /// How many bytes the records are.
    bytes: usize,
    /// The upstream page that they are just the records of.
    pub(super) whole: Option<Arc<KeptPage>>,
    /// The one of them whose fetch is the oldest.
    pub(super) oldest: Option<Arc<KeptPage>>,
    pub(super) came: Came,
    /// The page and the record in it that come next.
    pub(super) index: usize,
    pub(super) offset: usize,
}

impl Inside {
    /// Seats a reader at the start of a listing that is fresh enough for it.
    ///
    /// # Errors
    /// The error that stands for an answer of upstream now.
    pub(super) fn join(
        store: &Arc<Store>,
        target: &Arc<Target>,
        query: &Query,
        freshness: Freshness,
        taken: &Arc<Taken>,
    ) -> Result<Self, ReadError> {
        let now = Instant::now();
        let not_before = now.checked_sub(freshness.max_age.unwrap_or(target.ttl));
        let mut index = store.index();
        let starts = index.starts(target, query);
        let shared = starts.first().map(|listing| Arc::clone(&listing.shared)).or_else(|| index.shared(target, query));
        let held = shared.map_or_else(|| target.hold_off.held(now), |shared| shared.held(now));
        let candidates = candidates(starts, now, &store.config);
        let choice = choice::choose(&candidates, freshness, target.max_stale, held.is_some());
        let chosen = match choice {
            Choice::Join(chosen) | Choice::JoinAndRefresh(chosen) => starts.get(chosen).map(Arc::clone),
            Choice::Start { left, .. } => left.and_then(|left| starts.get(left)).map(Arc::clone),
        };
        match (choice, held, &chosen) {
            (Choice::Start { .. }, Some(held), _) => return Err(held.told(now)),
            (Choice::JoinAndRefresh(_), None, Some(stale)) => {
                // At least as far as the first page: this reader reads that now.
                let fresh = index.start(target, query, stale.reached().max(1));
                fresh.require(not_before);
                Walk::start(&fresh, &mut lock(&fresh.state), store);
            }
            _ => {}
        }
        let listing = chosen.unwrap_or_else(|| index.start(target, query, 0));
        listing.require(not_before);
        index.touch(&listing);
        let inside = Self::at_start(Seat::take(&listing, taken));
        drop(index);
        store.make_room();
        Ok(Self { is_forced: matches!(choice, Choice::Start { is_forced: true, .. }), ..inside })
    }

    /// Seats a reader where an earlier answer ended. Where that listing is gone, the reader begins with the page of the same
    /// token.
    ///
    /// # Errors
    /// As for [`Inside::join`].
    pub(super) fn resume(
        store: &Arc<Store>,
        target: &Arc<Target>,
        query: &Query,
        place: &Place,
        taken: &Arc<Taken>,
    ) -> Result<Self, ReadError> {
        let mut index = store.index();
        if let Some(listing) = index.listing(place.listing, target, query)
            && let Some((seat, index, offset)) = Seat::find(&listing, place, taken)
        {
            return Ok(Self { index, offset, ..Self::at_start(seat) });
        }
        let sought = Some(place.clone());
        if place.token.is_none() {
            drop(index);
            return Ok(Self { sought, ..Self::join(store, target, query, Freshness::default(), taken)? });
        }
        let first = Step { token: place.token.clone(), number: place.pages_before };
        let seat = Seat::take(&index.tail(target, query, first), taken);
        drop(index);
        store.make_room();
        Ok(Self { sought, ..Self::at_start(seat) })
    }

    /// Seats a reader that met an error at what is stale, if it allows that: in another listing than the one that failed
    /// it, where it would meet the same.
    pub(super) fn stale(
        failed: Option<&Self>,
        store: &Store,
        target: &Arc<Target>,
        query: &Query,
        freshness: Freshness,
        taken: &Arc<Taken>,
    ) -> Option<Self> {
        let mut index = store.index();
        let is_other =
            |listing: &&Arc<Listing>| failed.is_none_or(|failed| !Arc::ptr_eq(failed.seat.listing(), listing));
        let others: Vec<_> = index.starts(target, query).iter().filter(is_other).map(Arc::clone).collect();
        let candidates = candidates(&others, Instant::now(), &store.config);
        let usable = choice::usable(&candidates, freshness, target.max_stale, true)?;
        let listing = others.get(usable).map(Arc::clone)?;
        index.touch(&listing);
        Some(Self::at_start(Seat::take(&listing, taken)))
    }

    fn at_start(seat: Seat) -> Self {
        Self { seat, index: 0, offset: 0, sought: None, is_forced: false }
    }

    pub(super) fn is_at_start(&self) -> bool {
        self.index == 0 && self.offset == 0
    }

    /// Waits for the next `limit` records, fewer only at the end, or where more would be over [`MAX_BYTES`].
    pub(super) async fn run(&self, limit: usize, read_ahead: usize, store: &Arc<Store>) -> Result<Run, ReadError> {
        let Self { index, offset, .. } = *self;
        let records = VecDeque::new();
        let mut run = Run { records, bytes: 0, whole: None, oldest: None, came: Came::Hit, index, offset };
        let mut sought = self.sought.as_ref();
        let mut left = limit;
        while left > 0 {
            let (page, came) = self.seat.page(run.index, read_ahead, store).await?;
            run.came = run.came.max(came);
            let Some(page) = page else { break };
            if let Some(place) = sought.take().filter(|place| place.pages_before == page.step.number) {
                run.offset = place.find_again(&page.records);
            }
            left = run.add(page, left);
        }
        Ok(run)
    }
}

impl Run {
    /// Adds the records of the page from the offset on, `limit` at most and as many as there is room for, one at least in
    /// an empty run. Returns how many may follow: none once a page is not used up.
    fn add(&mut self, page: Arc<KeptPage>, limit: usize) -> usize {
        let len = page.records.len();
        let fitting = page.records.run_end(self.offset, limit, MAX_BYTES.saturating_sub(self.bytes));
        let end = if self.records.is_empty() { fitting.max(self.offset + 1).min(len) } else { fitting };
        let added = end.saturating_sub(self.offset);
        if added > 0 {
            let records = page.records.slice(self.offset..end);
            self.bytes += records.len();
            self.records.push_back(records);
            let is_older = self.oldest.as_ref().is_none_or(|oldest| page.sent.at < oldest.sent.at);
            if is_older {
                self.oldest = Some(Arc::clone(&page));
            }
        }
        (self.index, self.offset) = if end == len { (self.index + 1, 0) } else { (self.index, end) };
        self.whole = (added == len && self.records.len() == 1).then_some(page);
        if end < len { 0 } else { limit - added }
    }
}

fn candidates(listings: &[Arc<Listing>], now: Instant, config: &Config) -> Vec<Candidate> {
    listings.iter().map(|listing| listing.candidate(now, config)).collect()
}
