//! One walk upstream for any number of readers of a query.
//!
//! [`Listings`] finds or opens the listing that a [`Reader`] reads. A listing is filled by at most one fetch at a time,
//! in a task of its own, as far as its readers want; it is open, complete, or broken off by an error. Readers wait for
//! pages together, and share them and the failure. All listings together are bounded by bytes.

mod asked;
mod blame;
mod charge;
mod choice;
mod cursor;
mod demand;
mod index;
mod listings;
mod pages;
mod phase;
mod query_state;
mod reader;
mod reading;
mod render;
mod status;
mod subscription;
mod walk;

use std::{
    collections::HashSet,
    hash::BuildHasher as _,
    mem,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use self::{
    charge::Charge,
    choice::{Candidate, Extent},
    cursor::{Cursor, ResumePoint},
    demand::Demand,
    pages::{KeptPage, PageKey, Pages},
    phase::{Event, Phase},
    query_state::QueryState,
};
pub use self::{
    cursor::{InvalidCursor, OpenError},
    demand::ReadClock,
    listings::Listings,
    reader::{Page, Reader, belongs_to},
    render::{Head, Render, Rendered, WholePage},
    status::{ListingState, ListingStatus},
};
use super::{Config, ListingError, ReadError, hold_off::Held, lock, metrics::Counter};
use crate::source::{Origin, Priority, Sent};

/// How many bytes an error takes at most: upstream cuts AWS's words.
const ERROR: usize = 2048;

/// The records of one walk of a query, from its start or from an upstream token on.
#[derive(Debug)]
struct Listing {
    id: u64,
    query: Arc<QueryState>,
    /// The page that the walk begins with.
    first: PageKey,
    /// How long the listing is fresh for readers who do not say.
    ttl: Duration,
    state: Mutex<State>,
    /// What its readers came to.
    readers: Counter,
    /// Wakes all readers that wait: a page came, or a failure, or the end.
    news: Notify,
    /// Wakes a walk that is queued: a reader came or left.
    demand_changed: Notify,
}

/// The part of a listing that changes.
#[derive(Debug)]
struct State {
    phase: Phase,
    pages: Pages,
    /// When the first page was sent: the age of the listing counts from there.
    first_sent: Option<Instant>,
    /// When the last page was sent, and what it was.
    last: Option<(Sent, Origin)>,
    /// The page to fetch next, and when it must have been sent at the earliest, for those who joined.
    next: PageKey,
    not_before: Option<Instant>,
    /// The hashes of the tokens so far, to notice one that comes again.
    tokens: HashSet<u64>,
    /// How often a fetch failed, and how it last did. A failure closes nothing: a reader meets it where a page is
    /// missing, and the walk goes on from there for a reader that asks when the hold-off is over.
    failures: u64,
    failure: Option<(Held, Option<Origin>)>,
    demands: Slab<Demand>,
    /// How many pages readers have read.
    reached: usize,
    /// How many pages are wanted whether there are readers or not.
    background: usize,
    charge: Charge,
}

impl Listing {
    /// Creates a listing that has not begun, counts in `bytes`, and will go on for `background` pages whether it is
    /// read or not.
    fn new(
        config: &Config,
        bytes: &Arc<AtomicUsize>,
        query: Arc<QueryState>,
        first: PageKey,
        background: usize,
    ) -> Self {
        let mut state = State {
            phase: Phase::Idle,
            pages: Pages::default(),
            first_sent: None,
            last: None,
            next: first.clone(),
            not_before: None,
            tokens: HashSet::new(),
            failures: 0,
            failure: None,
            demands: Slab::new(),
            reached: 0,
            background,
            charge: Charge::new(bytes),
        };
        state.is_new_token(&first);
        state.charge.add(size_of::<Self>() + size_of::<QueryState>() + query.query.size() + first.size());
        let ttl = config.jittered(query.target.ttl);
        Self {
            id: fastrand::u64(1..),
            query,
            first,
            ttl,
            state: Mutex::new(state),
            readers: Counter::default(),
            news: Notify::new(),
            demand_changed: Notify::new(),
        }
    }

    /// Returns what the choice of a listing depends on. New readers stay out of one that broke off for good, since it
    /// will never be complete, whose start is not kept, or that is empty and was kept long enough.
    fn candidate(&self, now: Instant, config: &Config) -> Candidate {
        let state = lock(&self.state);
        let age = state.age(now);
        let extent = match &state.phase {
            Phase::Complete => Extent::Everything,
            _ if state.pages.is_empty() => Extent::Nothing,
            _ => Extent::Beginning,
        };
        let is_without_nodes = extent == Extent::Everything && state.pages.is_empty();
        let is_outdated = is_without_nodes && age.is_some_and(|age| age >= config.negative_ttl);
        let is_broken = matches!(state.phase, Phase::Broken(_));
        let is_open = !is_broken && !state.pages.is_windowed() && !is_outdated;
        Candidate { is_open, age, ttl: self.ttl, is_advancing: state.phase.is_advancing(), extent }
    }

    /// Returns the cursor of a reader who stands before this record of this page, or behind all pages there are.
    ///
    /// # Errors
    /// [`ListingError::Evicted`], if it is not known any more where that page began.
    fn cursor(&self, state: &State, index: usize, offset: usize) -> Result<Cursor, ListingError> {
        let Some(page) = state.pages.get(index) else {
            return match (&state.phase, &state.last) {
                (Phase::Complete, Some((last, _))) => Ok(Cursor::End(last.as_of)),
                (phase, _) if phase.is_evicted() => Err(ListingError::Evicted),
                _ => Ok(self.before(&state.next)),
            };
        };
        let last_id = offset.checked_sub(1).and_then(|last| page.records.id(last)).map(str::to_owned);
        let PageKey { token, number } = page.key.clone();
        Ok(Cursor::At(ResumePoint { listing: self.id, token, pages_before: number, offset, last_id }))
    }

    /// Returns the cursor of a reader who stands before this page.
    fn before(&self, page: &PageKey) -> Cursor {
        let PageKey { token, number } = page.clone();
        Cursor::At(ResumePoint { listing: self.id, token, pages_before: number, offset: 0, last_id: None })
    }

    /// Returns how many pages its readers have read.
    fn reached(&self) -> usize {
        lock(&self.state).reached
    }

    /// Returns how long its slowest reader has taken nothing; none if nobody reads it, but for readers that are given
    /// up.
    fn slowest(&self, now: Instant, stall_timeout: Duration) -> Option<Duration> {
        let state = lock(&self.state);
        state.live_demands(now, stall_timeout).map(|demand| demand.idle(state.pages.len(), now)).max()
    }

    /// Returns whether it can be read from its first page on.
    fn is_whole(&self) -> bool {
        let state = lock(&self.state);
        state.pages.is_whole() && !matches!(state.phase, Phase::Broken(_))
    }

    /// Gives up all records, so that readers meet [`ListingError::Evicted`]. Returns whether there are any readers.
    fn evict(&self) -> bool {
        let mut state = lock(&self.state);
        state.happened(Event::Evicted);
        state.pages.clear();
        state.charge.clear();
        let is_read = !state.demands.is_empty();
        drop(state);
        self.news.notify_waiters();
        is_read
    }
}

impl State {
    /// Steps to the next phase.
    fn happened(&mut self, event: Event) {
        self.phase = mem::take(&mut self.phase).step(event);
    }

    /// Returns the time since the first page was sent, or its fetch while that is under way; none after that failed,
    /// since the next is as good as the first.
    fn age(&self, now: Instant) -> Option<Duration> {
        let in_flight = match self.phase {
            Phase::Fetching(sent) => Some(sent),
            _ => None,
        };
        self.first_sent.or(in_flight).map(|sent| now.saturating_duration_since(sent))
    }

    /// Finds the page, and the record in it, that `point` leads to, which was handed out of this listing; none if that
    /// page is no longer kept.
    fn find(&self, point: &ResumePoint) -> Option<(usize, usize)> {
        if matches!(self.phase, Phase::Broken(_)) {
            return None;
        }
        self.pages.find(point, &self.next)
    }

    /// Returns whether the walk should go on.
    fn is_wanted(&self) -> bool {
        let wanted = self.demands.iter().map(|(_, demand)| demand.wants).fold(self.background, usize::max);
        self.phase.is_open() && self.pages.len() < wanted
    }

    /// Returns for whom the next page is fetched.
    fn priority(&self) -> Priority {
        if self.demands.is_empty() { Priority::Background } else { Priority::Interactive }
    }

    /// Notes the token of a page, and returns whether it did not come before.
    fn is_new_token(&mut self, page: &PageKey) -> bool {
        let hash = self.tokens.hasher().hash_one(&page.token);
        self.tokens.insert(hash)
    }

    /// Notes when a page was sent, and what it was. The age of the listing is that of its first page, whoever fetched
    /// it.
    fn arrived(&mut self, sent: Sent, origin: Origin) {
        self.first_sent.get_or_insert(sent.at);
        self.last = Some((sent, origin));
    }

    /// Adds a page; one too many turns the listing into a window.
    fn push(&mut self, page: KeptPage, config: &Config) {
        self.charge.add(page.size());
        let index = self.pages.len();
        let now = Instant::now();
        self.pages.push(page);
        for (_, demand) in self.demands.iter().filter(|(_, demand)| demand.waits_for == Some(index)) {
            demand.clock.note(now);
        }
        if self.charge.bytes() > config.listing_cap() {
            self.pages.make_window();
            self.background = 0;
        }
        if self.pages.is_windowed() {
            self.trim(now, config.stall_timeout);
        }
    }

    /// Records a failure for now, which the readers that wait for the page report. The walk goes on as soon as a reader
    /// asks for the page again; until then nothing is fetched in the background.
    fn fail(&mut self, failure: Held, origin: Option<Origin>) {
        if self.failure.replace((failure, origin)).is_none() {
            self.charge.add(ERROR);
        }
        self.failures += 1;
        self.background = 0;
        self.happened(Event::Failed);
    }

    /// Returns the last failure for a reader that has waited since there were so many, if there was another.
    fn failed_since(&self, failures: u64, now: Instant) -> Option<ReadError> {
        let (failure, origin) = self.failure.as_ref().filter(|_| self.failures > failures)?;
        origin.iter().for_each(Origin::link);
        Some(ReadError { has_waited: true, ..failure.to_read_error(now) })
    }

    /// Breaks off for good, unless it came to its end before.
    fn break_off(&mut self, error: Arc<ListingError>) {
        if self.phase.is_open() {
            self.happened(Event::BrokeOff(error));
            self.charge.add(ERROR);
        }
    }

    /// Drops the pages that no reader needs any more.
    fn trim(&mut self, now: Instant, stall_timeout: Duration) {
        let needed = self.live_demands(now, stall_timeout).map(|demand| demand.at).min();
        if let Some(needed) = needed {
            self.charge.subtract(self.pages.drop_before(needed));
        }
    }

    /// Returns the demands of readers that are not given up.
    fn live_demands(&self, now: Instant, stall_timeout: Duration) -> impl Iterator<Item = &Demand> {
        let pages = self.pages.len();
        self.demands.iter().map(|(_, demand)| demand).filter(move |demand| demand.idle(pages, now) <= stall_timeout)
    }
}

#[cfg(test)]
mod tests;
