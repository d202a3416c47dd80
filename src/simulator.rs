//! An SSM for `demo`, tests and benches: answers `DescribeInstanceInformation` over HTTP in AWS JSON 1.1 from made-up
//! fleets, one an account and region, as real AWS has been seen to answer, and misbehaves on demand. STS's `AssumeRole` is
//! beside it. Shares no code with [`crate::upstream`], or both would share the same mistake.

mod faults;
mod fleet;
mod identity;
mod operation;
mod server;
mod sts;
mod token;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use self::{
    faults::{Bucket, Effect},
    fleet::Fleet,
    identity::Sessions,
};
pub use self::{
    faults::{Failure, FailureKind, Faults, Rate},
    identity::Scope,
};

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to bind; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many nodes each fleet has.
    pub nodes: usize,
    /// What the fleets are made from: equal seeds make equal fleets.
    pub seed: u64,
    /// How long a NextToken may be used.
    pub token_lifetime: Duration,
    /// How long the session of an assumed role lasts; absent, as long as its caller asks.
    pub session_lifetime: Option<Duration>,
    /// The external ID that roles demand, if any.
    pub external_id: Option<String>,
    /// How to misbehave from the start.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            nodes: 1237,
            seed: 1,
            token_lifetime: Duration::from_mins(15),
            session_lifetime: None,
            external_id: None,
            faults: Faults::default(),
        }
    }
}

/// A running simulator. Dropping it stops it.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

/// What the simulator was asked so far.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Stats {
    /// How many calls came in, failed ones included, those to STS not.
    pub calls: u64,
    /// How many of them were throttled by rate.
    pub throttled: u64,
    /// How many there were for each account and region, as `ACCOUNT/REGION`.
    pub calls_by_scope: BTreeMap<String, u64>,
    /// How often a role was assumed.
    pub roles_assumed: u64,
    /// The body of the last of them.
    pub last_request: Value,
}

/// What every connection shares.
#[derive(Debug)]
struct State {
    config: Config,
    fleets: Mutex<HashMap<Scope, Arc<Fleet>>>,
    sessions: Mutex<Sessions>,
    faults: Mutex<Faults>,
    /// Those of single scopes, in place of `faults`.
    faults_by_scope: Mutex<HashMap<Scope, Faults>>,
    buckets: Mutex<HashMap<Scope, Bucket>>,
    random: Mutex<fastrand::Rng>,
    stats: Mutex<Stats>,
}

impl Config {
    /// Serves; fleets are made when they are asked for.
    ///
    /// # Errors
    /// What the system says to binding the address.
    pub async fn start(self) -> io::Result<Simulator> {
        let socket = TcpListener::bind(self.listen).await?;
        let addr = socket.local_addr()?;
        let state = Arc::new(State {
            fleets: Mutex::default(),
            sessions: Mutex::default(),
            faults: Mutex::new(self.faults.clone()),
            faults_by_scope: Mutex::default(),
            buckets: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(self.seed)),
            stats: Mutex::default(),
            config: self,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(socket, Arc::clone(&state)));
        Ok(Simulator { addr, state, _tasks: tasks })
    }
}

impl Simulator {
    /// The address that is bound.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The endpoint to give to an AWS client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Misbehaves in these ways from now on, and in no other, but for scopes that have faults of their own.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.state.faults) = faults;
    }

    /// Misbehaves in these ways, and in no other, to callers of one account and region.
    pub fn set_faults_of(&self, scope: Scope, faults: Faults) {
        lock(&self.state.faults_by_scope).insert(scope, faults);
    }

    /// What was asked so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        lock(&self.state.stats).clone()
    }
}

impl State {
    /// Takes note of a call, and decides how it fares.
    fn admit(&self, scope: Option<&Scope>, request: Value) -> Effect {
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

    /// Decides how the next call of the scope fares.
    fn draw(&self, scope: Option<&Scope>) -> Effect {
        let random = &mut lock(&self.random);
        let mut by_scope = lock(&self.faults_by_scope);
        match scope.and_then(|scope| by_scope.get_mut(scope)) {
            Some(faults) => faults.draw(random),
            None => lock(&self.faults).draw(random),
        }
    }

    /// Whether nobody may assume this role of the account, asking in this region.
    fn denies(&self, scope: &Scope, role: &String) -> bool {
        let by_scope = lock(&self.faults_by_scope);
        let is_denied = |faults: &Faults| faults.denied_roles.contains(role);
        by_scope.get(scope).map_or_else(|| is_denied(&lock(&self.faults)), is_denied)
    }

    fn fleet(&self, scope: &Scope) -> Arc<Fleet> {
        let Config { nodes, seed, .. } = self.config;
        let mut fleets = lock(&self.fleets);
        Arc::clone(fleets.entry(scope.clone()).or_insert_with(|| Arc::new(Fleet::new(nodes, scope.seed(seed)))))
    }
}

/// Nothing that a panic could leave half done is kept under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
