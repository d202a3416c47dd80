//! The walk from upstream page to upstream page that fills a listing. Our own, not the SDK's paginator: that one takes
//! a repeated token for the end.

use std::sync::{Arc, MutexGuard};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::warn;

use super::{
    Listing, State,
    blame::Blame,
    cursor::Cursor,
    listings::Store,
    pages::{KeptPage, PageKey},
    phase::{Event, Phase},
    query_state::QueryState,
    render::{Rendered, WholePage},
};
use crate::{
    display::ErrorChain,
    read::{ListingError, lock},
    source::{FetchError, Origin, Priority, Request, Sent, UpstreamError, UpstreamPage},
};

/// The task that walks while anyone wants more. Dropped before it is over, by a panic or because the gateway stops, it
/// breaks the listing off: nobody must wait for it for ever.
#[derive(Debug)]
pub(super) struct Walk {
    listing: Arc<Listing>,
    store: Arc<Store>,
    /// Whether the listing is not this task's to fill any more.
    is_over: bool,
}

/// A fetch that is sent.
#[derive(Debug)]
struct Fetch {
    page: PageKey,
    /// When it was admitted: what it brings was sent then, or earlier by somebody else.
    sent: Sent,
    priority: Priority,
    not_before: Option<Instant>,
}

impl Walk {
    /// Starts a task that walks, unless one does or there is nothing to come; returns whether it was started.
    pub(super) fn start(listing: &Arc<Listing>, state: &mut State, store: &Arc<Store>) -> bool {
        let is_idle = matches!(state.phase, Phase::Idle);
        if is_idle {
            state.happened(Event::Wanted);
            let walk = Self { listing: Arc::clone(listing), store: Arc::clone(store), is_over: false };
            store.spawn(walk.run());
        }
        is_idle
    }

    async fn run(mut self) {
        let mut slot = self.acquire_slot().await;
        while let Some(fetch) = self.next_fetch().await {
            let QueryState { target, query, .. } = &*self.listing.query;
            let Fetch { page, sent, priority, not_before } = &fetch;
            let outcome = target
                .source
                .page(Request {
                    filters: query.filters(),
                    token: page.token.as_deref(),
                    number: page.number,
                    priority: *priority,
                    not_before: *not_before,
                })
                .await;
            target.metrics.fetched(outcome.as_ref().map_or_else(|failed| failed.error.kind(), |_| "answered"), sent.at);
            match outcome {
                Ok(page) => self.append(fetch, page),
                Err(FetchError { error, origin, .. }) => self.fail(&fetch.page, fetch.sent, error, Some(origin)),
            }
            self.listing.news.notify_waiters();
            self.store.make_room();
            slot = slot.filter(|_| self.is_joinable());
        }
    }

    /// Waits for one of the slots of the query's walks, which keep all but two of them from advancing. A resumed walk
    /// takes a slot if one is free but never waits for one: its readers cannot get their page elsewhere. A walk that
    /// nobody can join any more needs none.
    async fn acquire_slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = Arc::clone(&self.listing.query.walk_slots);
        let begins = !self.is_tail() && self.state().first_sent.is_none();
        if begins {
            slots.acquire_owned().await.ok()
        } else {
            slots.try_acquire_owned().ok().filter(|_| self.is_joinable())
        }
    }

    /// Returns whether new readers may join the walk from its start.
    fn is_joinable(&self) -> bool {
        !self.is_tail() && self.listing.candidate(Instant::now(), &self.store.config).is_open
    }

    /// Returns whether the walk began with a token that a caller brought, which may be made up.
    fn is_tail(&self) -> bool {
        self.listing.first.token.is_some()
    }

    /// Returns what to fetch, once the target may be asked for it; none when the walk pauses or is over. It leaves the
    /// source's queue when nobody wants the page any more, and queues anew when the page becomes more or less urgent.
    async fn next_fetch(&mut self) -> Option<Fetch> {
        let since = Instant::now();
        while let Some(priority) = self.priority() {
            let target = Arc::clone(&self.listing.query.target);
            let admitted = tokio::select! {
                biased;
                admitted = target.source.admit(priority) => admitted,
                () = self.outlast(priority) => continue,
            };
            target.metrics.waited(since);
            match admitted {
                Ok(()) => break,
                Err(error) if priority == Priority::Interactive => {
                    self.fail(&PageKey::default(), Sent::now(self.store.wall), error, None);
                    self.listing.news.notify_waiters();
                }
                // A refresh that is not admitted is nobody's failure.
                Err(_) => {
                    let listing = Arc::clone(&self.listing);
                    self.pause(lock(&listing.state));
                }
            }
        }
        self.send()
    }

    /// Returns how urgent the next fetch is, if it is wanted and upstream may be asked.
    fn priority(&self) -> Option<Priority> {
        let state = self.state();
        let may_go_on = !self.is_over && state.is_wanted() && self.listing.query.held(Instant::now()).is_none();
        may_go_on.then(|| state.priority())
    }

    /// Waits until the next fetch is not, or not any more, of this priority.
    async fn outlast(&self, priority: Priority) {
        let target = &self.listing.query.target;
        loop {
            // Made before the look: a hold-off that begins in between is not missed.
            let held = target.held.notified();
            if self.priority() != Some(priority) {
                return;
            }
            tokio::select! {
                () = self.listing.demand_changed.notified() => {}
                () = held => {}
            }
        }
    }

    /// Returns the fetch that is sent now, if it is wanted and upstream may be asked; else the walk pauses.
    fn send(&mut self) -> Option<Fetch> {
        if self.is_over {
            return None;
        }
        let listing = Arc::clone(&self.listing);
        let mut state = lock(&listing.state);
        let sent = Sent::now(self.store.wall);
        if state.is_wanted() {
            if state.next.number >= self.store.config.page_cap {
                self.give_up(&mut state, ListingError::PageCap(self.store.config.page_cap), sent.at);
            } else if listing.query.try_enter(sent.at, &self.store.config) {
                state.happened(Event::Sent(sent.at));
                let page = state.next.clone();
                let priority = state.priority();
                let not_before = state.not_before;
                return Some(Fetch { page, sent, priority, not_before });
            }
        }
        // Under the same lock as the look at what is wanted: whoever wants more from now on starts another task.
        self.pause(state);
        None
    }

    /// Ends the task: the walk goes on in another one.
    fn pause(&mut self, mut state: MutexGuard<'_, State>) {
        state.happened(Event::Paused);
        self.is_over = true;
        drop(state);
        self.listing.news.notify_waiters();
    }

    /// Takes in the page that a fetch brought, unless the listing was evicted meanwhile.
    fn append(&self, fetch: Fetch, page: UpstreamPage) {
        let listing = &self.listing;
        let store = &self.store;
        for hold_off in [&listing.query.hold_off, &listing.query.target.hold_off] {
            hold_off.succeed(page.sent.at);
            // A page that was sent earlier than it was asked for, by somebody else, says nothing of what failed since.
            hold_off.leave(fetch.sent.at);
        }
        if page.sent.at >= fetch.sent.at {
            listing.query.target.answered((store.wall)());
        }
        let number = fetch.page.number + 1;
        let next = page.next_token.as_deref().map(|token| PageKey { token: Some(token.into()), number });
        let sent = page.sent;
        let origin = page.origin.clone();
        let kept = (!page.records.is_empty()).then(|| self.render(fetch.page, page, next.as_ref()));
        let mut state = self.state();
        if !state.phase.is_open() {
            return;
        }
        if next.as_ref().is_some_and(|next| !state.is_new_token(next)) {
            return self.give_up(&mut state, ListingError::RepeatedToken, sent.at);
        }
        state.happened(Event::Arrived { is_last: next.is_none() });
        if let Some(next) = next {
            state.next = next;
        }
        state.arrived(sent, origin);
        if let Some(page) = kept {
            state.push(page, &store.config);
        }
    }

    /// Renders the page once, for all who take it whole, with the cursor behind it.
    fn render(&self, key: PageKey, page: UpstreamPage, next: Option<&PageKey>) -> KeptPage {
        let UpstreamPage { records, sent, origin, .. } = page;
        let QueryState { target, query, .. } = &*self.listing.query;
        let cursor = next.map_or(Cursor::End(sent.as_of), |next| self.listing.before(next));
        let cursor = cursor.to_text(target.fingerprint(query), (self.store.wall)());
        let is_last = next.is_none();
        let records_len = records.slice(0..records.len()).len();
        let page = WholePage { target: &target.name, as_of: sent.as_of, cursor: &cursor, is_last, records_len };
        let (rendered, records) = Rendered::new(&self.store.render.heads(&page), &cursor, &records);
        KeptPage { key, records, rendered: Arc::new(rendered), is_last, sent, origin }
    }

    /// Takes in a failure, which ends the task: the walk goes on for whoever asks again, when nobody is held off for
    /// the failure any more.
    fn fail(&mut self, page: &PageKey, sent: Sent, error: UpstreamError, origin: Option<Origin>) {
        self.is_over = true;
        let has_expired = page.token.is_some() && matches!(error, UpstreamError::InvalidToken(_));
        let error = if has_expired { ListingError::Expired(error) } else { ListingError::Upstream(error) };
        let error = Arc::new(error);
        let now = Instant::now();
        let config = &self.store.config;
        let QueryState { target, hold_off, .. } = &*self.listing.query;
        target.failed(&error, (self.store.wall)());
        let mut state = self.state();
        let is_breaker_open = target.is_broken(config);
        let held = match Blame::of(&error, self.is_tail(), is_breaker_open) {
            Blame::Walk => {
                hold_off.leave(sent.at);
                target.hold_off.leave(sent.at);
                warn!(target_name = %target.name, error = %ErrorChain(&*error), "the listing broke off");
                return state.break_off(error);
            }
            Blame::Query => {
                target.hold_off.leave(sent.at);
                hold_off.fail(Arc::clone(&error), sent.at, now, config)
            }
            Blame::Target => {
                hold_off.leave(sent.at);
                // To other queries it is the target that fails.
                let breaker_open = || Arc::new(ListingError::BreakerOpen(error.advice()));
                let known = if is_breaker_open { breaker_open() } else { Arc::clone(&error) };
                let held = target.hold_off.fail(known, sent.at, now, config);
                target.held.notify_waiters();
                held
            }
        };
        state.fail(held.with_error(error), origin);
    }

    /// Breaks off for good: the walk itself is wrong, and going on would not mend it.
    fn give_up(&self, state: &mut State, error: ListingError, sent: Instant) {
        warn!(target_name = %self.listing.query.target.name, error = %ErrorChain(&error), "the listing broke off");
        let error = Arc::new(error);
        if !self.is_tail() {
            self.listing.query.hold_off.fail(Arc::clone(&error), sent, Instant::now(), &self.store.config);
        }
        state.break_off(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.listing.state)
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.state();
            self.give_up(&mut state, ListingError::Interrupted, Instant::now());
            drop(state);
            self.listing.news.notify_waiters();
        }
    }
}
