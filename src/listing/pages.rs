//! A listing: the pages of one walk, and who reads them.

use std::{
    collections::{HashSet, VecDeque},
    hash::BuildHasher as _,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

use super::{
    Config, ListingError, ReadError, Rendered,
    charge::Charge,
    choice::{Candidate, Extent},
    cursor::{Cursor, Place},
    hold_off::Held,
    lock,
    metrics::Counter,
    position::Position,
    shared::Shared,
};
use crate::{
    model::Records,
    source::{Origin, Priority, Sent},
};

/// How many bytes an error takes at most: upstream cuts AWS's words.
const ERROR: usize = 2048;

/// The records of one walk of a query, from its start or from an upstream token on.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared>,
    /// The step that the walk begins with.
    pub(super) first: Step,
    /// How long it is fresh for readers who do not say.
    pub(super) ttl: Duration,
    pub(super) state: Mutex<State>,
    /// What its readers came to.
    pub(super) readers: Counter,
    /// Wakes all readers that wait: a page came, or a failure, or the end.
    pub(super) news: Notify,
    /// Tells the walk that a reader came or left.
    pub(super) seated: Notify,
}

/// Where an upstream page stands in its walk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Step {
    /// The token that leads to it; none leads to the first.
    pub(super) token: Option<Arc<str>>,
    /// How many pages lie before it, empty ones included.
    pub(super) number: u32,
}

/// An upstream page with records in it.
#[derive(Debug)]
pub(super) struct KeptPage {
    pub(super) step: Step,
    pub(super) records: Records,
    /// The page as the messages that it is sent in, whole and with the cursor to what follows.
    pub(super) rendered: Arc<Rendered>,
    /// Whether no page follows.
    pub(super) is_last: bool,
    pub(super) sent: Sent,
    pub(super) origin: Origin,
}

/// What changes in a listing.
#[derive(Debug)]
pub(super) struct State {
    /// When the first page was sent, or its fetch while that is under way; none after that failed: the next is as good as the
    /// first.
    pub(super) started: Option<Instant>,
    /// When pages must have been sent at the earliest, for those who joined.
    pub(super) not_before: Option<Instant>,
    /// When the last page was sent, and what it was.
    pub(super) last: Option<(Sent, Origin)>,
    /// The pages that are kept, and how many before them are not any more.
    pub(super) pages: VecDeque<Arc<KeptPage>>,
    pub(super) trimmed: usize,
    /// The fetch to come.
    pub(super) next: Step,
    pub(super) end: Option<End>,
    /// Whether a task walks.
    pub(super) is_advancing: bool,
    /// How often a fetch failed, and how it last did. A failure closes nothing: a reader meets it where a page is missing,
    /// and lets the walk go on from there when the hold-off is over.
    failures: u64,
    failure: Option<(Held, Option<Origin>)>,
    /// Its readers, by their seats.
    pub(super) readers: Slab<Position>,
    /// How many pages readers have read.
    reached: usize,
    /// How many pages are wanted whether there are readers or not.
    background: usize,
    /// Whether it outgrew its cap, and keeps only what its readers still need.
    is_windowed: bool,
    /// The hashes of the tokens followed so far, to notice one that comes again.
    followed: HashSet<u64>,
    charge: Charge,
}

#[derive(Debug)]
pub(super) enum End {
    Complete,
    Broken(Arc<ListingError>),
}

impl Listing {
    /// A listing that has not begun, counts in `bytes`, and will go on for `background` pages whether it is read or not.
    pub(super) fn new(
        config: &Config,
        bytes: &Arc<AtomicUsize>,
        shared: Arc<Shared>,
        first: Step,
        background: usize,
    ) -> Self {
        let mut state = State {
            started: None,
            not_before: None,
            last: None,
            pages: VecDeque::new(),
            trimmed: 0,
            next: first.clone(),
            end: None,
            is_advancing: false,
            failures: 0,
            failure: None,
            readers: Slab::new(),
            reached: 0,
            background,
            is_windowed: false,
            followed: HashSet::new(),
            charge: Charge::new(bytes),
        };
        state.follow(&first);
        state.charge.add(size_of::<Self>() + size_of::<Shared>() + shared.query.size() + first.size());
        let ttl = config.jittered(shared.target.ttl);
        Self {
            id: fastrand::u64(1..),
            shared,
            first,
            ttl,
            state: Mutex::new(state),
            readers: Counter::default(),
            news: Notify::new(),
            seated: Notify::new(),
        }
    }

    /// What the choice of a listing depends on. New readers stay out of one that broke off for good, since it will never
    /// be complete, whose start is not kept, or that is empty and was kept long enough.
    pub(super) fn candidate(&self, now: Instant, config: &Config) -> Candidate {
        let state = lock(&self.state);
        let age = state.started.map(|started| now.saturating_duration_since(started));
        let is_broken = matches!(state.end, Some(End::Broken(_)));
        let extent = match &state.end {
            Some(End::Complete) => Extent::Everything,
            _ if state.pages.is_empty() => Extent::Nothing,
            _ => Extent::Beginning,
        };
        let is_without_nodes = extent == Extent::Everything && state.pages.is_empty();
        let is_outdated = is_without_nodes && age.is_some_and(|age| age >= config.negative_ttl);
        let is_open = !is_broken && !state.is_windowed && !is_outdated;
        Candidate { is_open, age, ttl: self.ttl, is_advancing: state.is_advancing, extent }
    }

    /// Where a reader goes on who stands before this record of this page, or behind all pages there are.
    ///
    /// # Errors
    /// [`ListingError::Evicted`]: where its page began is not known any more.
    pub(super) fn place(&self, index: usize, offset: usize) -> Result<Cursor, ListingError> {
        let state = lock(&self.state);
        let Some(page) = state.page(index) else {
            return match (&state.end, &state.last) {
                (Some(End::Complete), Some((last, _))) => Ok(Cursor::End(last.as_of)),
                _ if state.is_evicted() => Err(ListingError::Evicted),
                _ => Ok(self.before(&state.next)),
            };
        };
        let last_id = offset.checked_sub(1).and_then(|last| page.records.id(last)).map(str::to_owned);
        let Step { token, number } = page.step.clone();
        Ok(Cursor::At(Place { listing: self.id, token, pages_before: number, offset, last_id }))
    }

    /// Where a reader goes on who stands before the page of this step.
    pub(super) fn before(&self, step: &Step) -> Cursor {
        let Step { token, number } = step.clone();
        Cursor::At(Place { listing: self.id, token, pages_before: number, offset: 0, last_id: None })
    }

    /// Has pages fetched that were not sent before this.
    pub(super) fn require(&self, not_before: Option<Instant>) {
        let mut state = lock(&self.state);
        state.not_before = state.not_before.max(not_before);
    }

    /// When the last page was sent, and what it was.
    pub(super) fn last(&self) -> Option<(Sent, Origin)> {
        lock(&self.state).last.clone()
    }

    /// How many pages its readers have read.
    pub(super) fn reached(&self) -> usize {
        lock(&self.state).reached
    }

    /// How long its slowest reader has taken nothing; none if nobody reads it, but for readers that are given up.
    pub(super) fn slowest(&self, now: Instant, stall_timeout: Duration) -> Option<Duration> {
        let state = lock(&self.state);
        state.live_readers(now, stall_timeout).map(|reader| reader.idle(state.len(), now)).max()
    }

    /// Whether it can be read from its first page on.
    pub(super) fn is_whole(&self) -> bool {
        let state = lock(&self.state);
        state.trimmed == 0 && !matches!(state.end, Some(End::Broken(_)))
    }

    /// Gives up all records: readers meet [`ListingError::Evicted`]. Whether there are any.
    pub(super) fn evict(&self) -> bool {
        let mut state = lock(&self.state);
        state.end = Some(End::Broken(ListingError::Evicted.into()));
        state.pages = VecDeque::new();
        state.charge.clear();
        let is_read = !state.readers.is_empty();
        drop(state);
        self.news.notify_waiters();
        is_read
    }
}

impl State {
    /// The page at this index, if it is kept.
    fn page(&self, index: usize) -> Option<&Arc<KeptPage>> {
        self.pages.get(index.checked_sub(self.trimmed)?)
    }

    /// The page, and the record in it, to which `place` leads, which was handed out of this listing; none if that page is
    /// no longer kept.
    pub(super) fn find(&self, place: &Place) -> Option<(usize, usize)> {
        if matches!(self.end, Some(End::Broken(_))) {
            return None;
        }
        let index = self.pages.partition_point(|page| page.step.number < place.pages_before);
        let page = self.pages.get(index);
        let found = page.map_or(self.next.number, |page| page.step.number);
        if found == place.pages_before {
            let records = page.map_or(0, |page| page.records.len());
            return Some((self.trimmed + index, place.offset.min(records)));
        }
        // The pages between were empty, unless they are gone.
        let is_gone = index == 0 && self.trimmed > 0;
        (place.pages_before < found && !is_gone).then_some((self.trimmed + index, 0))
    }

    /// How many pages there were so far.
    pub(super) fn len(&self) -> usize {
        self.trimmed + self.pages.len()
    }

    /// Whether the walk should go on.
    pub(super) fn is_wanted(&self) -> bool {
        let wanted = self.readers.iter().map(|(_, reader)| reader.wants).fold(self.background, usize::max);
        self.end.is_none() && self.len() < wanted
    }

    /// For whom the next page is fetched.
    pub(super) fn priority(&self) -> Priority {
        if self.readers.is_empty() { Priority::Background } else { Priority::Interactive }
    }

    /// Hands out the page at this index, if it is kept.
    pub(super) fn hand_out(&mut self, index: usize) -> Option<Arc<KeptPage>> {
        let page = self.page(index).map(Arc::clone)?;
        self.reached = self.reached.max(index + 1);
        Some(page)
    }

    /// Takes note of a step's token; false if it came before.
    pub(super) fn follow(&mut self, step: &Step) -> bool {
        let hash = self.followed.hasher().hash_one(&step.token);
        self.followed.insert(hash)
    }

    /// Notes when a page was sent, and what it was. The age of the listing is that of its first page, whoever fetched it.
    pub(super) fn arrived(&mut self, sent: Sent, origin: Origin) {
        if self.last.replace((sent, origin)).is_none() {
            self.started = Some(sent.at);
        }
    }

    /// Adds a page; one too many turns the listing into a window.
    pub(super) fn push(&mut self, page: KeptPage, config: &Config) {
        self.charge.add(page.size());
        let index = self.len();
        self.pages.push_back(Arc::new(page));
        let now = Instant::now();
        self.readers
            .iter()
            .filter(|(_, reader)| reader.waits_for == Some(index))
            .for_each(|(_, reader)| reader.taken.note(now));
        if self.charge.bytes() > config.listing_cap() {
            self.is_windowed = true;
            self.background = 0;
        }
        if self.is_windowed {
            self.trim(now, config.stall_timeout);
        }
    }

    /// Records a failure for now, which the readers that wait for the page report. The walk goes on as soon as a reader asks
    /// for the page again; until then nothing is fetched in the background.
    pub(super) fn fail(&mut self, failure: Held, origin: Option<Origin>) {
        if self.failure.replace((failure, origin)).is_none() {
            self.charge.add(ERROR);
        }
        self.failures += 1;
        self.background = 0;
        self.started = self.started.filter(|_| self.last.is_some());
    }

    /// How often a fetch failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Returns the last failure for a reader that has waited since there were so many, if there was another.
    pub(super) fn failed_since(&self, failures: u64, now: Instant) -> Option<ReadError> {
        let (failure, origin) = self.failure.as_ref().filter(|_| self.failures > failures)?;
        origin.iter().for_each(Origin::link);
        Some(ReadError { has_waited: true, ..failure.told(now) })
    }

    /// How many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// Breaks off for good, unless it came to its end before.
    pub(super) fn break_off(&mut self, error: Arc<ListingError>) {
        if self.end.is_none() {
            self.end = Some(End::Broken(error));
            self.charge.add(ERROR);
        }
    }

    fn is_evicted(&self) -> bool {
        matches!(&self.end, Some(End::Broken(error)) if matches!(**error, ListingError::Evicted))
    }

    /// Drops the pages that no reader needs any more.
    fn trim(&mut self, now: Instant, stall_timeout: Duration) {
        let Some(needed) = self.live_readers(now, stall_timeout).map(|reader| reader.at).min() else { return };
        while self.trimmed < needed
            && let Some(page) = self.pages.pop_front()
        {
            self.charge.subtract(page.size());
            self.trimmed += 1;
        }
    }

    /// The readers that are not given up.
    fn live_readers(&self, now: Instant, stall_timeout: Duration) -> impl Iterator<Item = &Position> {
        let pages = self.len();
        self.readers.iter().map(|(_, reader)| reader).filter(move |reader| reader.idle(pages, now) <= stall_timeout)
    }
}

impl Step {
    fn size(&self) -> usize {
        self.token.as_deref().map_or(0, str::len)
    }
}

impl KeptPage {
    /// How many bytes of memory it takes, roughly, the allocations around it included.
    fn size(&self) -> usize {
        const AROUND: usize = 128;
        size_of::<Self>() + self.step.size() + self.records.size() + self.rendered.size() + self.origin.size() + AROUND
    }
}
