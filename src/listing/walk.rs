//! The walk from upstream page to upstream page that fills a listing. Our own, not the SDK's paginator: that one takes a
//! repeated token for the end.

use std::{
    sync::{Arc, MutexGuard},
    time::SystemTime,
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    ListingError,
    listings::Store,
    lock,
    pages::{End, KeptPage, Listing, Question, Sent, State, Step},
};
use crate::upstream::{UpstreamError, UpstreamPage};

/// The task that walks while anyone wants more. Dropped before it is over, by a panic or because the gateway stops, it
/// breaks the listing off: nobody must wait for it for ever.
#[derive(Debug)]
pub(super) struct Walk {
    listing: Arc<Listing>,
    store: Arc<Store>,
    has_failed: bool,
    is_over: bool,
}

impl Walk {
    /// Lets a task walk, unless one does or there is nothing to come; whether it was let.
    pub(super) fn start(listing: &Arc<Listing>, state: &mut State, store: &Arc<Store>) -> bool {
        if state.is_advancing || state.end.is_some() {
            return false;
        }
        state.is_advancing = true;
        let walk = Self { listing: Arc::clone(listing), store: Arc::clone(store), has_failed: false, is_over: false };
        store.spawn(walk.run());
        true
    }

    async fn run(mut self) {
        let _turn = self.turn().await;
        while let Some((step, sent)) = self.next() {
            let filters = self.listing.question.query.filters();
            let outcome = self.store.upstream.fetch(filters, step.token.as_deref()).await;
            self.store.metrics.count_upstream_call(sent.at.elapsed());
            self.has_failed = outcome.is_err();
            self.settle(step, sent, outcome);
            self.store.make_room();
        }
    }

    /// A walk from the start begins when fewer than two of its query advance. One that goes on has readers inside, and
    /// waits for nobody.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turns = Arc::clone(&self.listing.question.turns);
        let begins = self.listing.first.token.is_none() && self.state().started.is_none();
        if begins { turns.acquire_owned().await.ok() } else { turns.try_acquire_owned().ok() }
    }

    /// The step to fetch, if it is wanted and upstream may be asked; else the walk pauses, and this task is over. After a
    /// failure it is for those who were told to ask again.
    fn next(&mut self) -> Option<(Step, Sent)> {
        let listing = Arc::clone(&self.listing);
        let mut state = lock(&listing.state);
        let sent = Sent::now();
        if !self.has_failed && state.is_wanted() && self.store.held(&listing.question, sent.at).is_none() {
            if state.next.number < self.store.config.page_cap {
                state.started.get_or_insert(sent.at);
                return Some((state.next.clone(), sent));
            }
            self.give_up(&mut state, ListingError::PageCap(self.store.config.page_cap), sent.at);
        }
        // Under the same lock as the look at what is wanted: whoever wants more from now on starts another task.
        state.is_advancing = false;
        self.is_over = true;
        drop(state);
        listing.news.notify_waiters();
        None
    }

    /// Takes in what a fetch brought.
    fn settle(&self, step: Step, sent: Sent, outcome: Result<UpstreamPage, UpstreamError>) {
        let (listing, store) = (&self.listing, &self.store);
        let mut state = self.state();
        match outcome {
            _ if state.end.is_some() => {}
            Ok(page) => {
                listing.question.hold_off.succeed(sent.at);
                store.throttle.succeed(sent.at);
                self.append(&mut state, step, sent, page);
            }
            Err(UpstreamError::InvalidRequest(aws)) if aws.is_invalid_next_token() && step.token.is_some() => {
                state.break_off(ListingError::Expired(UpstreamError::InvalidRequest(aws)).into());
                drop(state);
                // Not kept for others: AWS decides about a token each time it is asked.
                store.forget(listing);
            }
            Err(error) => {
                let error = Arc::new(ListingError::Upstream(error));
                let hold_off = if error.is_throttle() { &store.throttle } else { &listing.question.hold_off };
                state.fail(hold_off.fail(error, sent.at, Instant::now(), &store.config));
            }
        }
        listing.news.notify_waiters();
    }

    fn append(&self, state: &mut State, step: Step, sent: Sent, page: UpstreamPage) {
        match page.next_token {
            Some(token) if !state.follow(&token) => return self.give_up(state, ListingError::RepeatedToken, sent.at),
            token => {
                state.end = token.is_none().then_some(End::Complete);
                state.next = Step { token: token.map(Arc::from), number: step.number + 1 };
            }
        }
        state.last = Some(sent);
        if !page.records.is_empty() {
            // Written once for all who take the whole page: the cursor behind it, and what else goes before its records.
            let Question { query, fingerprint, .. } = &*self.listing.question;
            let cursor = self.listing.behind(state).to_text(fingerprint, SystemTime::now());
            let head = (self.store.head)(query.target(), sent.as_of, &cursor, &page.records);
            let records = page.records.behind(&head);
            state.push(KeptPage { step, records, cursor_len: cursor.len(), sent }, &self.store.config);
        }
    }

    /// Breaks off for good: the walk itself is wrong, and going on would not mend it.
    fn give_up(&self, state: &mut State, error: ListingError, sent: Instant) {
        let error = Arc::new(error);
        self.listing.question.hold_off.fail(Arc::clone(&error), sent, Instant::now(), &self.store.config);
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
            state.is_advancing = false;
            self.give_up(&mut state, ListingError::Interrupted, Instant::now());
            drop(state);
            self.listing.news.notify_waiters();
        }
    }
}
