use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    config::Config,
    faults::{Bucket, Effect, Failure, FailureKind, Faults},
    fleet::Fleet,
    identity::{Scope, Sessions},
};

/// Statistics on the calls so far.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Stats {
    /// Calls to SSM, failed ones included.
    pub calls: u64,
    /// Calls that [`Faults::rate`] throttled.
    pub throttled: u64,
    /// Calls by account and region, as `ACCOUNT/REGION`.
    pub calls_by_scope: BTreeMap<String, u64>,
    /// Successful calls of `AssumeRole`.
    pub roles_assumed: u64,
    /// The body of the last call to SSM.
    pub last_request: Value,
}

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) config: Config,
    fleets: Mutex<HashMap<Scope, Arc<Fleet>>>,
    pub(super) sessions: Mutex<Sessions>,
    pub(super) faults: Mutex<Faults>,
    /// The faults of single scopes, which replace `faults`.
    pub(super) faults_by_scope: Mutex<HashMap<Scope, Faults>>,
    buckets: Mutex<HashMap<Scope, Bucket>>,
    random: Mutex<fastrand::Rng>,
    pub(super) stats: Mutex<Stats>,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        Self {
            fleets: Mutex::default(),
            sessions: Mutex::default(),
            faults: Mutex::new(config.faults.clone()),
            faults_by_scope: Mutex::default(),
            buckets: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(config.seed)),
            stats: Mutex::default(),
            config,
        }
    }

    /// Counts a call, and decides its outcome.
    pub(super) fn admit(&self, scope: Option<&Scope>, request: Value) -> Effect {
        let mut stats = lock(&self.stats);
        stats.calls += 1;
        stats.last_request = request;
        let mut effect = self.draw(scope);
        if let Some(scope) = scope {
            *stats.calls_by_scope.entry(format!("{}/{}", scope.account, scope.region)).or_default() += 1;
            if let Some(rate) = effect.faults.rate {
                let mut buckets = lock(&self.buckets);
                let bucket = buckets.entry(scope.clone()).or_insert_with(|| Bucket::new(rate));
                if !bucket.take(rate, Instant::now()) {
                    stats.throttled += 1;
                    effect.failure = Some(Failure::always(FailureKind::Throttling));
                }
            }
        }
        effect
    }

    /// Decides the outcome of the next call of the scope.
    fn draw(&self, scope: Option<&Scope>) -> Effect {
        let random = &mut lock(&self.random);
        let mut by_scope = lock(&self.faults_by_scope);
        match scope.and_then(|scope| by_scope.get_mut(scope)) {
            Some(faults) => faults.draw(random),
            None => lock(&self.faults).draw(random),
        }
    }

    /// Returns whether `AssumeRole` denies this role of the account in this region.
    pub(super) fn denies(&self, scope: &Scope, role: &String) -> bool {
        let by_scope = lock(&self.faults_by_scope);
        let is_denied = |faults: &Faults| faults.denied_roles.contains(role);
        by_scope.get(scope).map_or_else(|| is_denied(&lock(&self.faults)), is_denied)
    }

    pub(super) fn fleet(&self, scope: &Scope) -> Arc<Fleet> {
        let Config { nodes, seed, .. } = self.config;
        let mut fleets = lock(&self.fleets);
        Arc::clone(fleets.entry(scope.clone()).or_insert_with(|| Arc::new(Fleet::new(nodes, scope.seed(seed)))))
    }
}

/// Locks a mutex. Poisoning is ignored, because no holder can leave the state half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
