//! A simulated SSM for `demo`, tests and benches. Answers `DescribeInstanceInformation` over HTTP in AWS JSON 1.1, as observed from
//! real AWS, from made-up fleets, one per account and region, and misbehaves on demand. Also answers STS's `AssumeRole`. Shares no
//! code with the SSM adapter, because both would then share the same mistakes.
//!
//! # Examples
//! ```
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! use ssm_gateway::simulator::{Config, Failure, FailureKind, Faults};
//!
//! let simulator = Config { nodes: 100, ..Config::default() }.start().await?;
//! let endpoint = simulator.url(); // for `upstream.endpoint_url`, or any AWS client
//! assert!(endpoint.starts_with("http://127.0.0.1:"));
//!
//! let throttling = Failure { calls: Some(3), ..Failure::always(FailureKind::Throttling) };
//! simulator.set_faults(Faults { failures: vec![throttling], ..Faults::default() });
//! assert_eq!(simulator.stats().calls, 0);
//! # Ok(())
//! # }
//! ```

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
    time::{Duration, Instant, SystemTime},
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
    faults::{Failure, FailureKind, Faults, ParseFailureError, Rate},
    identity::Scope,
};

/// Returns the wall time, by which tokens and sessions expire.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator has a port of its own, because it shares no code with the gateway"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The settings of a simulator.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to bind; port 0 selects a free port.
    pub listen: SocketAddr,
    /// The number of nodes in each fleet.
    pub nodes: usize,
    /// The seed of the fleets: equal seeds make equal fleets.
    pub seed: u64,
    /// How long a NextToken is valid.
    pub token_lifetime: Duration,
    /// How long the session of an assumed role lasts; by default, as long as its caller requests.
    pub session_lifetime: Option<Duration>,
    /// The external ID that roles require, if any.
    pub external_id: Option<String>,
    /// The faults from the start.
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

/// A running simulator. Dropping the value stops the simulator and closes its connections.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

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
struct State {
    config: Config,
    fleets: Mutex<HashMap<Scope, Arc<Fleet>>>,
    sessions: Mutex<Sessions>,
    faults: Mutex<Faults>,
    /// The faults of single scopes, which replace `faults`.
    faults_by_scope: Mutex<HashMap<Scope, Faults>>,
    buckets: Mutex<HashMap<Scope, Bucket>>,
    random: Mutex<fastrand::Rng>,
    stats: Mutex<Stats>,
}

impl Config {
    /// Binds the address and serves in a task of its own. A fleet is made at the first call to it.
    ///
    /// # Errors
    /// If the address cannot be bound.
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
    /// Returns the bound address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the endpoint for an AWS client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Replaces the faults of all scopes that have no faults of their own.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.state.faults) = faults;
    }

    /// Replaces the faults of one account and region.
    pub fn set_faults_of(&self, scope: Scope, faults: Faults) {
        lock(&self.state.faults_by_scope).insert(scope, faults);
    }

    /// Returns the statistics so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        lock(&self.state.stats).clone()
    }
}

impl State {
    /// Counts a call, and decides its outcome.
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

/// Locks a mutex. Poisoning is ignored, because no holder can leave the state half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
