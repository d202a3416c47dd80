use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Came, ListingError, ReadError,
    cursor::Place,
    listings::Store,
    lock,
    pages::{End, KeptPage, Listing},
    walk::Walk,
};

/// A reader's place in a listing; giving it up by dropping it lets the walk pause.
#[derive(Debug)]
pub(super) struct Seat {
    listing: Arc<Listing>,
    number: u64,
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
    pub(super) fn take(listing: &Arc<Listing>) -> Self {
        let number = lock(&listing.state).seat();
        Self { listing: Arc::clone(listing), number }
    }

    /// Sits down where `place` leads, which was handed out of this listing: at this record of this page; none if that page
    /// is no longer kept.
    pub(super) fn find(listing: &Arc<Listing>, place: &Place) -> Option<(Self, usize, usize)> {
        let mut state = lock(&listing.state);
        let (index, offset) = state.find(place)?;
        let number = state.seat();
        state.move_reader(number, index, 0);
        drop(state);
        Some((Self { listing: Arc::clone(listing), number }, index, offset))
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
        let failures = lock(&self.listing.state).failures;
        let mut came = Came::Hit;
        loop {
            // Made before the look: news that comes in between is not missed.
            let news = self.listing.news.notified();
            match self.look(index, ahead, failures, store)? {
                Look::Page(page) => return Ok((Some(page), came)),
                Look::End => return Ok((None, came)),
                Look::Wait { caused } => came = came.max(if caused { Came::Miss } else { Came::Coalesced }),
            }
            news.await;
        }
    }

    fn look(&self, index: usize, ahead: usize, failures: u64, store: &Arc<Store>) -> Result<Look, ReadError> {
        let mut state = lock(&self.listing.state);
        let now = Instant::now();
        let wants = index + 1 + ahead;
        state.move_reader(self.number, index, wants);
        let page = state.hand_out(index);
        let held = || store.held(&self.listing.question, now);
        if page.is_none() {
            match &state.end {
                Some(End::Complete) => return Ok(Look::End),
                _ if index < state.trimmed => return Err(ListingError::Evicted.into()),
                Some(End::Broken(error)) => return Err(ReadError { error: Arc::clone(error), retry_after: None }),
                None => {
                    let failed = state.failed(now).filter(|_| state.failures > failures);
                    let refused = || held().filter(|_| !state.is_advancing).map(|failure| failure.told(now));
                    failed.or_else(refused).map_or(Ok(()), Err)?;
                }
            }
        }
        let is_due = state.len() < wants && !state.is_advancing && held().is_none();
        let caused = is_due && Walk::start(&self.listing, &mut state, store);
        Ok(page.map_or(Look::Wait { caused }, Look::Page))
    }

    /// Notes that the reader takes from now on.
    ///
    /// # Errors
    /// [`ListingError::Stalled`] if it took nothing for too long.
    pub(super) fn wake(&self, stall_timeout: Duration) -> Result<(), ReadError> {
        let mut state = lock(&self.listing.state);
        let now = Instant::now();
        match state.readers.get_mut(&self.number) {
            Some(reader) if reader.idle(now) <= stall_timeout => {
                reader.idle_since = None;
                Ok(())
            }
            _ => Err(ListingError::Stalled.into()),
        }
    }

    /// Notes that the reader was given what it asked for: it is its turn to take more.
    pub(super) fn rest(&self) {
        if let Some(reader) = lock(&self.listing.state).readers.get_mut(&self.number) {
            reader.idle_since = Some(Instant::now());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.listing.state).readers.remove(&self.number);
    }
}
