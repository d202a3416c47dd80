//! Where listings are found: by query, by upstream token, by ID.

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Arc, atomic::AtomicUsize},
};

use lru::LruCache;
use tokio::time::Instant;

use super::{Listing, pages::PageKey, query_state::QueryState};
use crate::{
    model::Query,
    read::{Config, Target},
};

/// All listings that can be found.
pub(super) struct Index {
    config: Config,
    /// The bytes of all listings, those that only their readers still know included.
    bytes: Arc<AtomicUsize>,
    entries: HashMap<Query, Entry>,
    /// Every listing by its ID, the most recently used first.
    listings: LruCache<u64, Arc<Listing>>,
}

/// The listings of one query; there is at least one.
struct Entry {
    state: Arc<QueryState>,
    /// From the start, newest first: those that advance, the newest that has an answer, and the newest that is
    /// complete.
    starts: Vec<Arc<Listing>>,
    /// From an upstream token on, by that and how many pages lie before it: both are what a cursor says.
    tails: HashMap<PageKey, Arc<Listing>>,
}

/// Shows how much there is, not what.
impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({} queries, {} listings)", self.entries.len(), self.listings.len())
    }
}

impl Index {
    pub(super) fn new(config: Config, bytes: Arc<AtomicUsize>) -> Self {
        Self { config, bytes, entries: HashMap::new(), listings: LruCache::unbounded() }
    }

    /// Returns the listings of the target's query from the start, newest first.
    pub(super) fn starts(&self, target: &Arc<Target>, query: &Query) -> &[Arc<Listing>] {
        self.entry(target, query).map_or(&[], |entry| &entry.starts)
    }

    /// Returns what the query's listings share, if there are any.
    pub(super) fn query_state(&self, target: &Arc<Target>, query: &Query) -> Option<Arc<QueryState>> {
        self.entry(target, query).map(|entry| Arc::clone(&entry.state))
    }

    /// Returns a listing of the query by its ID, and marks it as used.
    pub(super) fn listing(&mut self, id: u64, target: &Arc<Target>, query: &Query) -> Option<Arc<Listing>> {
        let is_meant = |state: &QueryState| Arc::ptr_eq(&state.target, target) && state.query == *query;
        self.listings.get(&id).filter(|listing| is_meant(&listing.query)).map(Arc::clone)
    }

    /// Marks a listing as used.
    pub(super) fn touch(&mut self, listing: &Listing) {
        self.listings.promote(&listing.id);
    }

    /// Adds a listing from the start, which will walk `background` pages whether it is read or not.
    pub(super) fn start(&mut self, target: &Arc<Target>, query: &Query, background: usize) -> Arc<Listing> {
        let entry = entry(&mut self.entries, &mut self.listings, target, query);
        entry.prune(Instant::now(), &self.config);
        let state = Arc::clone(&entry.state);
        let first = PageKey::default();
        let listing = Arc::new(Listing::new(&self.config, &self.bytes, state, first, background));
        entry.starts.insert(0, Arc::clone(&listing));
        self.listings.put(listing.id, Arc::clone(&listing));
        listing
    }

    /// Finds or adds the listing that begins with this page.
    pub(super) fn tail(&mut self, target: &Arc<Target>, query: &Query, first: PageKey) -> Arc<Listing> {
        let entry = entry(&mut self.entries, &mut self.listings, target, query);
        if let Some(listing) = entry.tails.get(&first).filter(|listing| listing.is_whole()) {
            self.listings.promote(&listing.id);
            return Arc::clone(listing);
        }
        let state = Arc::clone(&entry.state);
        let listing = Arc::new(Listing::new(&self.config, &self.bytes, state, first.clone(), 0));
        entry.tails.insert(first, Arc::clone(&listing));
        self.listings.put(listing.id, Arc::clone(&listing));
        listing
    }

    /// Takes out the least recently used listing that nobody reads, or else the one with the slowest reader.
    pub(super) fn remove_victim(&mut self, now: Instant) -> Option<Arc<Listing>> {
        let slowest = |listing: &Arc<Listing>| listing.slowest(now, self.config.stall_timeout);
        let listings = || self.listings.iter().rev().map(|(_, listing)| listing);
        let unread = listings().find(|listing| slowest(listing).is_none());
        let victim = unread.or_else(|| listings().max_by_key(|listing| slowest(listing))).map(Arc::clone)?;
        self.remove(&victim);
        Some(victim)
    }

    /// Returns every listing, the most recently used first.
    pub(super) fn all(&self) -> Vec<Arc<Listing>> {
        self.listings.iter().map(|(_, listing)| Arc::clone(listing)).collect()
    }

    /// Takes out all listings of targets that are none any more.
    pub(super) fn retain(&mut self, is_target: impl Fn(&Arc<Target>) -> bool) -> Vec<Arc<Listing>> {
        let gone = self.listings.iter().filter(|(_, listing)| !is_target(&listing.query.target));
        let gone: Vec<_> = gone.map(|(_, listing)| Arc::clone(listing)).collect();
        for listing in &gone {
            self.remove(listing);
        }
        gone
    }

    fn entry(&self, target: &Arc<Target>, query: &Query) -> Option<&Entry> {
        self.entries.get(query).filter(|entry| Arc::ptr_eq(&entry.state.target, target))
    }

    /// Takes out a listing.
    pub(super) fn remove(&mut self, listing: &Listing) {
        self.listings.pop(&listing.id);
        let query = &listing.query.query;
        if let Some(entry) = self.entries.get_mut(query) {
            entry.starts.retain(|other| other.id != listing.id);
            entry.tails.retain(|_, other| other.id != listing.id);
            if entry.starts.is_empty() && entry.tails.is_empty() {
                self.entries.remove(query);
            }
        }
    }
}

/// Returns the listings of the target's query, which may have none. Another target of the same name, from another
/// configuration, leaves its place: what AWS answered there says nothing here.
fn entry<'a>(
    entries: &'a mut HashMap<Query, Entry>,
    listings: &mut LruCache<u64, Arc<Listing>>,
    target: &Arc<Target>,
    query: &Query,
) -> &'a mut Entry {
    let entry = entries.entry(query.clone()).or_insert_with(|| Entry::new(target, query));
    if !Arc::ptr_eq(&entry.state.target, target) {
        let other = mem::replace(entry, Entry::new(target, query));
        for listing in other.starts.iter().chain(other.tails.values()) {
            listings.pop(&listing.id);
        }
    }
    entry
}

impl Entry {
    fn new(target: &Arc<Target>, query: &Query) -> Self {
        let state = Arc::new(QueryState::new(target, query));
        Self { state, starts: Vec::new(), tails: HashMap::new() }
    }

    /// Keeps only the starts that new readers may still want; cursors into the others find them by their ID.
    fn prune(&mut self, now: Instant, config: &Config) {
        let mut has_answer = false;
        let mut has_complete = false;
        self.starts.retain(|listing| {
            let candidate = listing.candidate(now, config);
            let is_answer = candidate.is_open && candidate.is_answering();
            let is_newest_answer = is_answer && !mem::replace(&mut has_answer, true);
            let is_newest_complete = is_answer && candidate.is_complete() && !mem::replace(&mut has_complete, true);
            candidate.is_open && (candidate.is_advancing || is_newest_answer || is_newest_complete)
        });
    }
}
