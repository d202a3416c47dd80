use std::{mem, sync::Arc};

use tokio::time::Instant;

use super::{
    Listing, State,
    cursor::ResumePoint,
    demand::{Demand, ReadClock},
    listings::Store,
    pages::KeptPage,
    phase::Phase,
    reading::{Gathered, Look, Next, Reading, Want},
    walk::Walk,
};
use crate::read::{ListingError, ReadError, Served, hold_off::Held, lock};

/// A reader's place in a listing. While it is there, what the reader wants is fetched and what it needs is kept;
/// dropping it lets the walk pause.
#[derive(Debug)]
pub(super) struct Subscription {
    listing: Arc<Listing>,
    clock: Arc<ReadClock>,
    /// Its demand among those of the listing, from its first look on.
    slot: Option<usize>,
    /// The page and the record in it that come next.
    index: usize,
    offset: usize,
    /// The place that has to be found again in the first page.
    sought: Option<ResumePoint>,
    /// Whether the reader's `max_age` refused what is fresh to others.
    pub(super) is_forced: bool,
    /// When pages must have been sent at the earliest.
    pub(super) not_before: Option<Instant>,
    /// The page whose fetch the call was linked to last.
    linked: Option<usize>,
}

impl Subscription {
    /// Subscribes at the start of a listing, in whose first page `sought` may have to be found again.
    pub(super) fn new(listing: &Arc<Listing>, clock: &Arc<ReadClock>, sought: Option<&ResumePoint>) -> Self {
        Self {
            listing: Arc::clone(listing),
            clock: Arc::clone(clock),
            slot: None,
            index: 0,
            offset: 0,
            sought: sought.cloned(),
            is_forced: false,
            not_before: None,
            linked: None,
        }
    }

    /// Subscribes where `point` leads, which was handed out of this listing; none if that page is no longer kept.
    pub(super) fn find(listing: &Arc<Listing>, clock: &Arc<ReadClock>, point: &ResumePoint) -> Option<Self> {
        let (index, offset) = lock(&listing.state).find(point)?;
        let mut subscription = Self::new(listing, clock, None);
        (subscription.index, subscription.offset) = (index, offset);
        Some(subscription)
    }

    pub(super) fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    pub(super) fn is_at_start(&self) -> bool {
        self.index == 0 && self.offset == 0
    }

    /// Begins to read: takes what is there, and sees to it that what is missing is fetched.
    ///
    /// # Errors
    /// [`ReadError`], where a page is missing and none will come, or none while upstream is held off.
    pub(super) fn read(&mut self, want: Want, store: &Arc<Store>, now: Instant) -> Result<Look, ReadError> {
        let mut reading = Reading::new(want, self.index, self.offset, self.sought.clone());
        let gathered = self.look(&mut reading, store, now)?;
        Ok(gathered.map_or_else(|| Look::Missing(reading), Look::Gathered))
    }

    /// Waits for what a reading lacks. Dropped, it only stops waiting: what the reader wanted stays wanted until it
    /// reads on or is dropped itself.
    ///
    /// # Errors
    /// As for [`Subscription::read`].
    pub(super) async fn wait(&mut self, mut reading: Reading, store: &Arc<Store>) -> Result<Gathered, ReadError> {
        let listing = Arc::clone(&self.listing);
        loop {
            // Made before the look: news that comes in between is not missed.
            let news = listing.news.notified();
            if let Some(gathered) = self.look(&mut reading, store, Instant::now())? {
                return Ok(gathered);
            }
            news.await;
        }
    }

    /// Looks at the listing under one lock, from the reader's arrival to what it leaves with; none while a page is to
    /// come.
    fn look(&mut self, reading: &mut Reading, store: &Arc<Store>, now: Instant) -> Result<Option<Gathered>, ReadError> {
        let listing = Arc::clone(&self.listing);
        let state = &mut *lock(&listing.state);
        let slot = self.subscribe(state, store, now)?;
        let last = self.take(reading, state);
        let is_missing = reading.left > 0;
        let wants = last + 1 + reading.ahead;
        let demand = state.demand(slot);
        (demand.wants, demand.waits_for) = (wants, Some(last));
        let may_start = matches!(state.phase, Phase::Idle) && state.pages.len() < wants;
        // Asked once: were it to begin between two looks, the reader would wait for a walk that nobody starts.
        let held = if may_start { listing.query.held(now) } else { None };
        if is_missing {
            let failures = *reading.failures.get_or_insert(state.failures);
            state.check(last, failures, held.as_ref(), now)?;
        }
        let has_started = may_start && held.is_none() && Walk::start(&listing, state, store);
        if is_missing && state.phase.is_open() {
            reading.served = reading.served.max(if has_started { Served::Miss } else { Served::Coalesced });
            return Ok(None);
        }
        self.leave(slot, reading, state, store, now).map(Some)
    }

    /// Returns the slot of the reader's demand, a new one at its first look.
    fn subscribe(&mut self, state: &mut State, store: &Store, now: Instant) -> Result<usize, ListingError> {
        if let Some(slot) = self.slot {
            let demand = state.demand(slot);
            let is_stalled = demand.waits_for.is_none() && demand.idle(0, now) > store.config.stall_timeout;
            return if is_stalled { Err(ListingError::Stalled) } else { Ok(slot) };
        }
        state.not_before = state.not_before.max(self.not_before);
        let at = self.index;
        let clock = Arc::clone(&self.clock);
        let slot = state.demands.insert(Demand { at, wants: 0, waits_for: Some(at), clock });
        if state.phase.is_advancing() {
            self.listing.demand_changed.notify_one();
        }
        self.slot = Some(slot);
        Ok(slot)
    }

    /// Adds the pages that are there, and returns the index of the last one that was looked for.
    fn take(&mut self, reading: &mut Reading, state: &mut State) -> usize {
        let mut last = reading.index;
        while reading.left > 0 {
            last = reading.index;
            let Some(page) = state.pages.get(last) else { break };
            state.reached = state.reached.max(last + 1);
            // Once, however many parts the page is read in.
            if self.linked.replace(last) != Some(last) {
                page.origin.link();
            }
            reading.add(page);
        }
        last
    }

    /// Notes that the reader was given what it asked for: it is the reader's turn to come back.
    fn leave(
        &mut self,
        slot: usize,
        reading: &mut Reading,
        state: &mut State,
        store: &Store,
        now: Instant,
    ) -> Result<Gathered, ReadError> {
        let Reading { index, offset, left, served, .. } = *reading;
        let is_at_end = index >= state.pages.len() && matches!(state.phase, Phase::Complete);
        // The cursor of a page that stands ready was written when the page came: it must be young, and right still.
        let is_ready = |page: &Arc<KeptPage>| {
            let age = now.saturating_duration_since(page.sent.at);
            page.is_last == is_at_end && age < store.config.cursor_slack()
        };
        let next = match reading.whole.take().filter(is_ready) {
            Some(page) => Next::Rendered(Arc::clone(&page.rendered)),
            None => Next::At(self.listing.cursor(state, index, offset)?),
        };
        // An answer without nodes is of a fetch, too. The fetches of nodes are linked already.
        if left > 0
            && let Some((sent, origin)) = &state.last
        {
            let is_linked = self.linked.replace(index).is_some();
            let has_nodes = || state.pages.last().is_some_and(|page| page.sent.at == sent.at);
            if !is_linked || served != Served::Hit && !has_nodes() {
                origin.link();
            }
        }
        let oldest = reading.oldest.take();
        let is_empty = oldest.is_none() && index == 0;
        let oldest = match oldest {
            Some(page) => Some((page.sent, page.origin.aws_request_id.clone())),
            None => state.last.as_ref().map(|(sent, origin)| (*sent, origin.aws_request_id.clone())),
        };
        let demand = state.demand(slot);
        demand.clock.note(now);
        (demand.at, demand.waits_for) = (index, None);
        (self.index, self.offset, self.sought) = (index, offset, None);
        Ok(Gathered { records: mem::take(&mut reading.records), next, oldest, served, is_empty, is_at_end })
    }
}

impl State {
    /// Checks that a page which is missing may still come, to a reader that has waited since there were so many
    /// failures.
    fn check(&self, page: usize, failures: u64, held: Option<&Held>, now: Instant) -> Result<(), ReadError> {
        match &self.phase {
            _ if self.pages.is_trimmed(page) => Err(ListingError::Evicted.into()),
            Phase::Complete => Ok(()),
            Phase::Broken(error) => Err(ReadError { error: Arc::clone(error), retry_after: None, has_waited: false }),
            _ => {
                let failed = self.failed_since(failures, now);
                failed.or_else(|| held.map(|held| held.to_read_error(now))).map_or(Ok(()), Err)
            }
        }
    }

    #[expect(clippy::expect_used, reason = "a slot is its subscription's own until that is dropped")]
    fn demand(&mut self, slot: usize) -> &mut Demand {
        self.demands.get_mut(slot).expect("a subscription has its slot")
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = lock(&self.listing.state);
        state.demands.try_remove(slot);
        if state.phase.is_advancing() {
            self.listing.demand_changed.notify_one();
        }
    }
}
