use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::warn;

use super::{index::Index, render::Render};
use crate::{
    model::TargetName,
    read::{Config, Counts, Target, lock},
    source::Wall,
};

/// All listings. Cheap to clone; when the last clone and the last reader are gone, walks are cancelled.
#[derive(Debug, Clone)]
pub struct Listings {
    store: Arc<Store>,
    targets: Arc<BTreeMap<TargetName, Arc<Target>>>,
    _stop: Arc<DropGuard>,
}

/// The state that listings, their readers and their walks share.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) config: Config,
    pub(super) render: &'static dyn Render,
    pub(super) wall: Wall,
    evictions: AtomicU64,
    /// The bytes of all listings, those that only their readers still know included.
    bytes: Arc<AtomicUsize>,
    /// Locked before a listing is, never after.
    index: Mutex<Index>,
    walks: TaskTracker,
    stop: CancellationToken,
}

impl Config {
    /// Puts listings in front of targets; `render` writes the heads of whole pages, `wall` is the clock that callers
    /// know.
    pub fn build(
        self,
        targets: impl IntoIterator<Item = impl Into<Arc<Target>>>,
        render: &'static dyn Render,
        wall: Wall,
    ) -> Listings {
        let stop = CancellationToken::new();
        let bytes = Arc::default();
        let store = Arc::new(Store {
            config: self,
            render,
            wall,
            evictions: AtomicU64::default(),
            index: Mutex::new(Index::new(self, Arc::clone(&bytes))),
            bytes,
            walks: TaskTracker::new(),
            stop: stop.clone(),
        });
        Listings { store, targets: by_name(targets), _stop: Arc::new(stop.drop_guard()) }
    }
}

fn by_name(targets: impl IntoIterator<Item = impl Into<Arc<Target>>>) -> Arc<BTreeMap<TargetName, Arc<Target>>> {
    Arc::new(targets.into_iter().map(Into::into).map(|target| (target.name.clone(), target)).collect())
}

impl Listings {
    /// Returns the same memory in front of other targets. What is known of a target that is among them stays.
    #[must_use]
    pub fn with_targets(&self, targets: impl IntoIterator<Item = impl Into<Arc<Target>>>) -> Self {
        Self { targets: by_name(targets), ..self.clone() }
    }

    /// Drops the listings of all other targets; whoever reads one goes on.
    pub fn drop_other_targets(&self) {
        let is_target =
            |target: &Arc<Target>| self.target(&target.name).is_some_and(|other| Arc::ptr_eq(other, target));
        // Dropped when the index is not locked any more.
        let _gone = self.store.index().retain(is_target);
    }

    /// Returns what the readers of all targets came to.
    #[must_use]
    pub fn readers(&self) -> Counts {
        self.targets().map(|target| target.metrics().readers()).sum()
    }

    /// Returns how many listings were given up for want of memory.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.store.evictions.load(Relaxed)
    }

    /// Returns the bounds and the times that hold for all.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.store.config
    }

    /// Returns the bytes of all listings.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes.load(Relaxed)
    }

    /// Returns how many walks advance right now.
    #[must_use]
    pub fn walks(&self) -> usize {
        self.store.walks.len()
    }

    /// Returns all targets, in the order of their names.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values().map(|target| &**target)
    }

    /// Returns the target of this name.
    #[must_use]
    pub fn target(&self, name: &TargetName) -> Option<&Arc<Target>> {
        self.targets.get(name)
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Gives up every listing, as if memory had run out.
    #[cfg(test)]
    pub(super) fn evict_all(&self) {
        while let Some(victim) = self.store.index().remove_victim(Instant::now()) {
            victim.evict();
        }
    }
}

impl Store {
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    /// Gives up listings until all are within bounds: the least recently used that nobody reads, or else the one with
    /// the slowest reader.
    pub(super) fn make_room(&self) {
        while self.bytes.load(Relaxed) > self.config.max_bytes {
            let Some(victim) = self.index().remove_victim(Instant::now()) else { return };
            if victim.evict() {
                warn!(target_name = %victim.query.target.name, "memory ran out under a listing that is read");
            }
            self.evictions.fetch_add(1, Relaxed);
        }
    }

    /// Runs a walk to its end, or until all is over.
    pub(super) fn spawn(&self, walk: impl Future<Output = ()> + Send + 'static) {
        self.walks.spawn(self.stop.clone().run_until_cancelled_owned(walk));
    }
}
