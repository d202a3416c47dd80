use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Listing, Listings,
    choice::{self, Candidate, Choice},
    cursor::ResumePoint,
    demand::ReadClock,
    listings::Store,
    pages::PageKey,
    reading::{Look, Want},
    subscription::Subscription,
    walk::Walk,
};
use crate::{
    model::{Freshness, Query},
    read::{Config, ReadError, Target, lock},
};

/// The question of a reader: what it asks for, and as part of which call.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) listings: Listings,
    pub(super) target: Arc<Target>,
    pub(super) query: Query,
    pub(super) freshness: Freshness,
    pub(super) clock: Arc<ReadClock>,
}

/// A subscription, and its first look at the listing.
type Subscribed = (Subscription, Result<Look, ReadError>);

impl Asked {
    pub(super) fn store(&self) -> &Arc<Store> {
        self.listings.store()
    }

    /// Subscribes at the start of a listing that is fresh enough.
    ///
    /// # Errors
    /// The error that stands for an answer of upstream now.
    pub(super) fn join(&self, want: Want, now: Instant) -> Result<Subscribed, ReadError> {
        self.subscribe_at_start(None, self.freshness, want, now)
    }

    /// Subscribes where an earlier answer ended. Where that listing is gone, the reader begins with the page of the
    /// same token.
    ///
    /// # Errors
    /// As for [`Asked::join`].
    pub(super) fn resume(&self, point: &ResumePoint, want: Want, now: Instant) -> Result<Subscribed, ReadError> {
        let store = self.store();
        let target = &self.target;
        let query = &self.query;
        let clock = &self.clock;
        let mut index = store.index();
        if let Some(listing) = index.listing(point.listing, target, query)
            && let Some(mut subscription) = Subscription::find(&listing, clock, point)
        {
            let look = subscription.read(want, store, now);
            return Ok((subscription, look));
        }
        if point.token.is_none() {
            drop(index);
            return self.subscribe_at_start(Some(point), Freshness::default(), want, now);
        }
        let first = PageKey { token: point.token.clone(), number: point.pages_before };
        let mut subscription = Subscription::new(&index.tail(target, query, first), clock, Some(point));
        let look = subscription.read(want, store, now);
        drop(index);
        store.make_room();
        Ok((subscription, look))
    }

    /// Subscribes a reader that met an error to what is stale, if it allows that: to another listing than the one that
    /// failed it, where it would meet the same.
    pub(super) fn join_stale(&self, failed: Option<&Listing>, want: Want, now: Instant) -> Option<Subscribed> {
        let store = self.store();
        let target = &self.target;
        let mut index = store.index();
        let is_other = |listing: &&Arc<Listing>| failed.is_none_or(|failed| failed.id != listing.id);
        let others: Vec<_> = index.starts(target, &self.query).iter().filter(is_other).map(Arc::clone).collect();
        let candidates = candidates(&others, now, &store.config);
        let usable = choice::usable(&candidates, self.freshness, target.max_stale, true)?;
        let listing = others.get(usable)?;
        index.touch(listing);
        let mut subscription = Subscription::new(listing, &self.clock, None);
        let look = subscription.read(want, store, now);
        Some((subscription, look))
    }

    /// Subscribes at the start of a listing, in which a place may have to be found again. The first look is under the
    /// lock of the index: nobody evicts a listing between the choice and that.
    fn subscribe_at_start(
        &self,
        sought: Option<&ResumePoint>,
        freshness: Freshness,
        want: Want,
        now: Instant,
    ) -> Result<Subscribed, ReadError> {
        let store = self.store();
        let target = &self.target;
        let query = &self.query;
        let mut index = store.index();
        let starts = index.starts(target, query);
        let shared =
            starts.first().map(|listing| Arc::clone(&listing.query)).or_else(|| index.query_state(target, query));
        let held = shared.map_or_else(|| target.hold_off.held(now), |shared| shared.held(now));
        let candidates = candidates(starts, now, &store.config);
        let choice = choice::choose(&candidates, freshness, target.max_stale, held.is_some());
        let chosen = match choice {
            Choice::Join(chosen) | Choice::JoinAndRefresh(chosen) => starts.get(chosen).map(Arc::clone),
            Choice::Start { left, .. } => left.and_then(|left| starts.get(left)).map(Arc::clone),
        };
        let not_before = now.checked_sub(freshness.max_age.unwrap_or(target.ttl));
        match (choice, held, &chosen) {
            (Choice::Start { .. }, Some(held), _) => return Err(held.to_read_error(now)),
            (Choice::JoinAndRefresh(_), None, Some(stale)) => {
                // At least as far as the first page: this reader reads that now.
                let fresh = index.start(target, query, stale.reached().max(1));
                let mut unbegun = lock(&fresh.state);
                unbegun.not_before = not_before;
                Walk::start(&fresh, &mut unbegun, store);
            }
            _ => {}
        }
        let listing = chosen.unwrap_or_else(|| index.start(target, query, 0));
        index.touch(&listing);
        let mut subscription = Subscription::new(&listing, &self.clock, sought);
        subscription.is_forced = matches!(choice, Choice::Start { is_forced: true, .. });
        subscription.not_before = not_before;
        let look = subscription.read(want, store, now);
        drop(index);
        store.make_room();
        Ok((subscription, look))
    }
}

fn candidates(listings: &[Arc<Listing>], now: Instant, config: &Config) -> Vec<Candidate> {
    listings.iter().map(|listing| listing.candidate(now, config)).collect()
}
