use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{
    Came, ListingError, ReadError,
    cursor::Place,
    listings::Store,
    lock,
    pages::{End, KeptPage, Listing, State},
    position::{Position, Taken},
    walk::Walk,
};

/// A reader's place in a listing; giving it up by dropping it lets the walk pause.
#[derive(Debug)]
pub(super) struct Seat {
    listing: Arc<Listing>,
    number: usize,
    /// The page whose fetch the call was linked to last.
    linked: AtomicUsize,
}

/// What a reader finds when it looks for a page.
enum Look {
    Page(Arc<KeptPage>),
    End,
    /// A fetch is under way; this reader caused it or not.
    Wait {
        caused: bool,
    },
}

impl Seat {
    /// Sits down at the listing's start.
    pub(super) fn take(listing: &Arc<Listing>, taken: &Arc<Taken>) -> Self {
        Self::at(listing, &mut lock(&listing.state), 0, taken)
    }

    /// Sits down where `place` leads, which was handed out of this listing: at this record of this page; none if that page
    /// is no longer kept.
    pub(super) fn find(listing: &Arc<Listing>, place: &Place, taken: &Arc<Taken>) -> Option<(Self, usize, usize)> {
        let mut state = lock(&listing.state);
        let (index, offset) = state.find(place)?;
        Some((Self::at(listing, &mut state, index, taken), index, offset))
    }

    fn at(listing: &Arc<Listing>, state: &mut State, at: usize, taken: &Arc<Taken>) -> Self {
        let taken = Arc::clone(taken);
        // Only a walk in line wants to know.
        if state.is_advancing {
            listing.seated.notify_one();
        }
        let number = state.readers.insert(Position { at, wants: 0, waits_for: Some(at), taken });
        Self { listing: Arc::clone(listing), number, linked: AtomicUsize::new(usize::MAX) }
    }

    pub(super) fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    /// Waits for the page at `index`, and has `ahead` more fetched meanwhile; none at the end. Tells whether it had to
    /// wait, and for whom. Dropped, it only stops waiting: what it wanted is wanted until the seat moves on or is given up.
    pub(super) async fn page(
        &self,
        index: usize,
        ahead: usize,
        store: &Arc<Store>,
    ) -> Result<(Option<Arc<KeptPage>>, Came), ReadError> {
        let mut came = Came::Hit;
        let mut failures = None;
        loop {
            // Made before the look: news that comes in between is not missed.
            let news = self.listing.news.notified();
            match self.look(index, ahead, &mut failures, store)? {
                Look::Page(page) => {
                    // Once, however many parts it is read in.
                    if self.linked.swap(index, Relaxed) != index {
                        page.origin.link();
                    }
                    return Ok((Some(page), came));
                }
                Look::End => {
                    // An answer without nodes is of a fetch, too.
                    let is_unlinked = self.linked.swap(index, Relaxed) == usize::MAX;
                    if let Some((_, origin)) = self.listing.last().filter(|_| is_unlinked || came != Came::Hit) {
                        origin.link();
                    }
                    return Ok((None, came));
                }
                Look::Wait { caused } => came = came.max(if caused { Came::Miss } else { Came::Coalesced }),
            }
            news.await;
        }
    }

    /// `failures` is how many there were at the first look: one more is this reader's.
    fn look(
        &self,
        index: usize,
        ahead: usize,
        failures: &mut Option<u64>,
        store: &Arc<Store>,
    ) -> Result<Look, ReadError> {
        let state = &mut *lock(&self.listing.state);
        let wants = index + 1 + ahead;
        if let Some(reader) = state.readers.get_mut(self.number) {
            if reader.waits_for.is_none() && reader.idle(0, Instant::now()) > store.config.stall_timeout {
                return Err(ListingError::Stalled.into());
            }
            (reader.wants, reader.waits_for) = (wants, Some(index));
        }
        let page = state.hand_out(index);
        if page.is_some() && (state.len() >= wants || state.is_advancing || state.end.is_some()) {
            return Ok(page.map_or(Look::End, Look::Page));
        }
        let now = Instant::now();
        // Asked once: were it to begin between two looks, the reader would wait for a walk that nobody starts.
        let held = if state.is_advancing { None } else { self.listing.shared.held(now) };
        if page.is_none() {
            let failures = *failures.get_or_insert(state.failures());
            match &state.end {
                Some(End::Complete) => return Ok(Look::End),
                _ if index < state.trimmed => return Err(ListingError::Evicted.into()),
                Some(End::Broken(error)) => {
                    return Err(ReadError { error: Arc::clone(error), retry_after: None, has_waited: false });
                }
                None => {
                    let failed = state.failed_since(failures, now);
                    failed.or_else(|| held.as_ref().map(|held| held.told(now))).map_or(Ok(()), Err)?;
                }
            }
        }
        let caused = held.is_none() && Walk::start(&self.listing, state, store);
        Ok(page.map_or(Look::Wait { caused }, Look::Page))
    }

    /// Notes that the reader was given what it asked for, and whether that was all before this page: it is its turn now.
    pub(super) fn rest(&self, index: usize, now: Instant) -> bool {
        let state = &mut *lock(&self.listing.state);
        if let Some(reader) = state.readers.get_mut(self.number) {
            reader.taken.note(now);
            (reader.at, reader.waits_for) = (index, None);
        }
        index >= state.len() && matches!(state.end, Some(End::Complete))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.listing.state);
        state.readers.try_remove(self.number);
        if state.is_advancing {
            self.listing.seated.notify_one();
        }
    }
}
