//! The walk from upstream page to upstream page that fills a listing. Our own, not the SDK's paginator: that one takes a
//! repeated token for the end.

use std::sync::{Arc, MutexGuard};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::warn;

use super::{
    ListingError,
    cursor::Cursor,
    fetch_span::{FetchSpan, Origin},
    listings::Store,
    lock,
    pages::{End, KeptPage, Listing, Sent, State, Step},
    shared::Shared,
};
use crate::{
    display::ErrorChain,
    model::Records,
    upstream::{AwsError, Priority, UpstreamError, UpstreamPage},
};

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
        let mut turn = self.turn().await;
        while let Some((step, sent)) = self.paced().await {
            let Shared { target, query, .. } = &*self.listing.shared;
            let span = FetchSpan::start(&target.name, target.region(), step.number);
            let outcome = target.upstream.fetch(query.filters(), step.token.as_deref()).await;
            target.metrics.fetched(outcome.as_ref().map_or_else(UpstreamError::kind, |_| "answered"), sent.at);
            self.has_failed = outcome.is_err();
            match outcome {
                Ok(page) => {
                    let origin = span.end(page.request_id.as_deref(), None);
                    self.append(step, sent, page, origin);
                }
                Err(error) => {
                    let request_id = error.aws().and_then(|aws| aws.request_id.as_deref());
                    let origin = span.end(request_id, Some(&error));
                    self.fail(&step, sent, error, Some(origin));
                }
            }
            self.listing.news.notify_waiters();
            self.store.make_room();
            turn = turn.filter(|_| self.is_joinable());
        }
    }

    /// A walk from the start begins when fewer than two of its query advance. One that goes on has readers inside, and
    /// waits for nobody. Whatever nobody can join any more stands in nobody's way.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turns = Arc::clone(&self.listing.shared.turns);
        let begins = !self.is_tail() && self.state().started.is_none();
        if begins {
            turns.acquire_owned().await.ok()
        } else {
            turns.try_acquire_owned().ok().filter(|_| self.is_joinable())
        }
    }

    /// Whether new readers may join the walk from its start.
    fn is_joinable(&self) -> bool {
        !self.is_tail() && self.listing.candidate(Instant::now(), &self.store.config).is_open
    }

    /// Whether the walk began with a token that a caller brought, which may be made up.
    fn is_tail(&self) -> bool {
        self.listing.first.token.is_some()
    }

    /// The step to fetch, once the target may be asked for it; gives up waiting for that when nobody wants it any more.
    async fn paced(&mut self) -> Option<(Step, Sent)> {
        let since = Instant::now();
        while let Some(priority) = self.priority() {
            let target = Arc::clone(&self.listing.shared.target);
            let turn = tokio::select! {
                biased;
                turn = target.upstream.turn(priority) => turn,
                () = self.outlast(priority) => continue,
            };
            target.metrics.waited(since);
            if let Err(error) = turn {
                // A refresh that gets no turn is nobody's failure.
                if priority == Priority::Interactive {
                    self.fail(&Step::default(), Sent::now(self.store.wall), error, None);
                }
                self.has_failed = true;
            }
            break;
        }
        self.next()
    }

    /// For whom the next step is, if for anyone.
    fn priority(&self) -> Option<Priority> {
        let state = self.state();
        let may_go_on = !self.has_failed && state.is_wanted() && self.listing.shared.held(Instant::now()).is_none();
        let priority = if state.readers.is_empty() { Priority::Background } else { Priority::Interactive };
        may_go_on.then_some(priority)
    }

    /// Waits until the next step is not, or not any more, for somebody of this priority.
    async fn outlast(&self, priority: Priority) {
        let target = &self.listing.shared.target;
        loop {
            // Made before the look: a hold-off that begins in between is not missed.
            let held = target.held.notified();
            if self.priority() != Some(priority) {
                return;
            }
            tokio::select! {
                () = self.listing.seated.notified() => {}
                () = held => {}
            }
        }
    }

    /// The step to fetch, if it is wanted and upstream may be asked; else the walk pauses, and this task is over. After a
    /// failure it is for those who were told to ask again.
    fn next(&mut self) -> Option<(Step, Sent)> {
        let listing = Arc::clone(&self.listing);
        let mut state = lock(&listing.state);
        let sent = Sent::now(self.store.wall);
        if !self.has_failed && state.is_wanted() {
            if state.next.number >= self.store.config.page_cap {
                self.give_up(&mut state, ListingError::PageCap(self.store.config.page_cap), sent.at);
            } else if listing.shared.try_enter(sent.at, &self.store.config) {
                state.started.get_or_insert(sent.at);
                return Some((state.next.clone(), sent));
            }
        }
        // Under the same lock as the look at what is wanted: whoever wants more from now on starts another task.
        state.is_advancing = false;
        self.is_over = true;
        drop(state);
        listing.news.notify_waiters();
        None
    }

    /// Takes in the page that a fetch brought, unless the listing was evicted meanwhile.
    fn append(&self, step: Step, sent: Sent, page: UpstreamPage, origin: Origin) {
        let (listing, store) = (&self.listing, &self.store);
        listing.shared.hold_off.succeed(sent.at);
        listing.shared.target.hold_off.succeed(sent.at);
        listing.shared.target.answered((store.wall)());
        let next = page.next_token.map(|token| Step { token: Some(Arc::from(token)), number: step.number + 1 });
        let last = (sent, origin.clone());
        let kept = (!page.records.is_empty()).then(|| self.kept(step, sent, &page.records, next.as_ref(), origin));
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        match next {
            None => state.end = Some(End::Complete),
            Some(next) if state.follow(&next) => state.next = next,
            Some(_) => return self.give_up(&mut state, ListingError::RepeatedToken, sent.at),
        }
        state.last = Some(last);
        if let Some(page) = kept {
            state.push(page, &store.config);
        }
    }

    /// Writes once, for all who take the whole page, the cursor behind it and what else goes before its records.
    fn kept(&self, step: Step, sent: Sent, records: &Records, next: Option<&Step>, origin: Origin) -> KeptPage {
        let Shared { target, query, .. } = &*self.listing.shared;
        let cursor = next.map_or(Cursor::End(sent.as_of), |next| self.listing.before(next));
        let cursor = cursor.to_text(target.fingerprint(query), (self.store.wall)());
        let head = (self.store.head)(query.target(), sent.as_of, &cursor, records);
        KeptPage { step, records: records.behind(&head), cursor_len: cursor.len(), sent, origin }
    }

    /// Takes in a failure. What AWS says of a token, or of one that a caller brought, is this walk's alone and not kept: it
    /// says nothing of the query, and is asked again each time.
    fn fail(&self, step: &Step, sent: Sent, error: UpstreamError, origin: Option<Origin>) {
        let has_expired = step.token.is_some() && error.aws().is_some_and(AwsError::is_invalid_next_token);
        let error = if has_expired { ListingError::Expired(error) } else { ListingError::Upstream(error) };
        let error = Arc::new(error);
        self.listing.shared.target.failed(&error, (self.store.wall)());
        let mut state = self.state();
        let Shared { target, hold_off, .. } = &*self.listing.shared;
        let is_broken = target.is_broken(&self.store.config);
        let is_of_target = error.is_throttle() || is_broken;
        let (its, other) = if is_of_target { (&target.hold_off, hold_off) } else { (hold_off, &target.hold_off) };
        other.leave(sent.at);
        if has_expired || self.is_tail() && error.is_refusal() {
            warn!(target_name = %target.name, error = %ErrorChain(&*error), "the listing broke off");
            its.leave(sent.at);
            return state.break_off(error);
        }
        // To other queries it is the target that fails.
        let told = if is_broken { Arc::new(ListingError::BreakerOpen) } else { Arc::clone(&error) };
        state.fail(its.fail(told, sent.at, Instant::now(), &self.store.config).saying(error), origin);
        if is_of_target {
            target.held.notify_waiters();
        }
    }

    /// Breaks off for good: the walk itself is wrong, and going on would not mend it.
    fn give_up(&self, state: &mut State, error: ListingError, sent: Instant) {
        warn!(target_name = %self.listing.shared.target.name, error = %ErrorChain(&error), "the listing broke off");
        let error = Arc::new(error);
        if !self.is_tail() {
            self.listing.shared.hold_off.fail(Arc::clone(&error), sent, Instant::now(), &self.store.config);
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
            state.is_advancing = false;
            self.give_up(&mut state, ListingError::Interrupted, Instant::now());
            drop(state);
            self.listing.news.notify_waiters();
        }
    }
}
