//! Where listings are found: by query, by upstream token, by ID.

use std::{collections::HashMap, fmt, mem, sync::Arc, time::Duration};

use lru::LruCache;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    Config,
    hold_off::HoldOff,
    listings::Store,
    pages::{Listing, Question, Step},
};
use crate::model::Query;

/// How many walks of one query, from its start, advance at a time: one, and one for readers who demand fresher.
const TURNS: usize = 2;

/// A query and its fingerprint.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) query: Query,
    pub(super) fingerprint: [u8; 16],
}

/// All listings that can be found.
pub(super) struct Index {
    entries: HashMap<[u8; 16], Entry>,
    /// Every listing by its ID, the most recently used first.
    listings: LruCache<u64, Arc<Listing>>,
}

/// The listings of one query; there is at least one.
struct Entry {
    question: Arc<Question>,
    /// From the start, newest first: those that advance, and the newest that has an answer.
    starts: Vec<Arc<Listing>>,
    /// From an upstream token on.
    tails: HashMap<Arc<str>, Arc<Listing>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { entries: HashMap::new(), listings: LruCache::unbounded() }
    }
}

/// Tells how much there is, not what.
impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({} queries, {} listings)", self.entries.len(), self.listings.len())
    }
}

impl Index {
    /// The listings of the query from the start, newest first.
    pub(super) fn starts(&self, asked: &Asked) -> &[Arc<Listing>] {
        self.entries.get(&asked.fingerprint).map_or(&[], |entry| &entry.starts)
    }

    /// What the query's listings share, if there are any.
    pub(super) fn question(&self, asked: &Asked) -> Option<Arc<Question>> {
        self.entries.get(&asked.fingerprint).map(|entry| Arc::clone(&entry.question))
    }

    /// A listing of the query by its ID, which is used by that.
    pub(super) fn listing(&mut self, id: u64, asked: &Asked) -> Option<Arc<Listing>> {
        self.listings.get(&id).filter(|listing| listing.question.fingerprint == asked.fingerprint).map(Arc::clone)
    }

    /// Takes note that a listing is used.
    pub(super) fn touch(&mut self, listing: &Listing) {
        self.listings.promote(&listing.id);
    }

    /// Adds a listing from the start, which will walk `background` pages whether it is read or not.
    pub(super) fn start(&mut self, store: &Store, asked: &Asked, background: usize) -> Arc<Listing> {
        let Self { entries, listings } = self;
        let entry = entries.entry(asked.fingerprint).or_insert_with(|| Entry::new(asked));
        for left in entry.prune(Instant::now(), &store.config) {
            listings.pop(&left.id);
        }
        let listing = Arc::new(Listing::new(store, Arc::clone(&entry.question), Step::default(), background));
        entry.starts.insert(0, Arc::clone(&listing));
        listings.put(listing.id, Arc::clone(&listing));
        listing
    }

    /// Finds or adds the listing that begins at this token.
    pub(super) fn tail(&mut self, store: &Store, asked: &Asked, token: &Arc<str>, number: u32) -> Arc<Listing> {
        let Self { entries, listings } = self;
        let entry = entries.entry(asked.fingerprint).or_insert_with(|| Entry::new(asked));
        if let Some(listing) = entry.tails.get(token).filter(|listing| listing.is_whole()) {
            listings.promote(&listing.id);
            return Arc::clone(listing);
        }
        let first = Step { token: Some(Arc::clone(token)), number };
        let listing = Arc::new(Listing::new(store, Arc::clone(&entry.question), first, 0));
        entry.tails.insert(Arc::clone(token), Arc::clone(&listing));
        listings.put(listing.id, Arc::clone(&listing));
        listing
    }

    /// Takes out the least recently used listing that nobody reads, or else the one with the slowest reader.
    pub(super) fn remove_victim(&mut self, now: Instant, stall_timeout: Duration) -> Option<Arc<Listing>> {
        let slowest = |listing: &Arc<Listing>| listing.slowest(now, stall_timeout);
        let listings = || self.listings.iter().rev().map(|(_, listing)| listing);
        let unread = listings().find(|listing| slowest(listing).is_none());
        let victim = unread.or_else(|| listings().max_by_key(|listing| slowest(listing))).map(Arc::clone)?;
        self.remove(&victim);
        Some(victim)
    }

    /// Takes out a listing.
    pub(super) fn remove(&mut self, listing: &Listing) {
        self.listings.pop(&listing.id);
        let fingerprint = &listing.question.fingerprint;
        if let Some(entry) = self.entries.get_mut(fingerprint) {
            entry.starts.retain(|other| other.id != listing.id);
            entry.tails.retain(|_, other| other.id != listing.id);
            if entry.starts.is_empty() && entry.tails.is_empty() {
                self.entries.remove(fingerprint);
            }
        }
    }
}

impl Entry {
    fn new(asked: &Asked) -> Self {
        let Asked { query, fingerprint } = asked.clone();
        let turns = Arc::new(Semaphore::new(TURNS));
        let question = Question { query, fingerprint, hold_off: HoldOff::default(), turns };
        Self { question: Arc::new(question), starts: Vec::new(), tails: HashMap::new() }
    }

    /// Keeps only the starts that new readers may still want, and gives those of the rest that nobody will: the others have
    /// pages for the cursors into them.
    fn prune(&mut self, now: Instant, config: &Config) -> Vec<Arc<Listing>> {
        let mut has_answer = false;
        let (kept, left) = self.starts.drain(..).partition(|listing| {
            let candidate = listing.candidate(now, config);
            let is_answer = candidate.is_open && candidate.is_answering;
            let is_newest_answer = is_answer && !mem::replace(&mut has_answer, true);
            candidate.is_open && (candidate.is_advancing || is_newest_answer)
        });
        self.starts = kept;
        Vec::into_iter(left).filter(|listing| listing.is_bare()).collect()
    }
}
