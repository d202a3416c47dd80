//! An SSM for `demo`, tests and benches: answers `DescribeInstanceInformation` over HTTP in AWS JSON 1.1 from a made-up
//! fleet, as real AWS has been seen to answer, and misbehaves on demand. Shares no code with [`crate::upstream`], or both
//! would share the same mistake.

mod faults;
mod fleet;
mod operation;
mod server;
mod token;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

pub use self::faults::{Failure, FailureKind, Faults};
use self::{faults::Effect, fleet::Node};

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to bind; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many nodes the fleet has.
    pub nodes: usize,
    /// What the fleet is made from: equal seeds make equal fleets.
    pub seed: u64,
    /// How long a NextToken may be used.
    pub token_lifetime: Duration,
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
    /// How many calls came in, failed ones included.
    pub calls: u64,
    /// The body of the last of them.
    pub last_request: Value,
}

/// What every connection shares.
#[derive(Debug)]
struct State {
    fleet: Vec<Node>,
    token_lifetime: Duration,
    faults: Mutex<Faults>,
    random: Mutex<fastrand::Rng>,
    stats: Mutex<Stats>,
}

impl Config {
    /// Makes the fleet and serves it.
    ///
    /// # Errors
    /// What the system says to binding the address.
    pub async fn start(self) -> io::Result<Simulator> {
        let socket = TcpListener::bind(self.listen).await?;
        let addr = socket.local_addr()?;
        let state = Arc::new(State {
            fleet: fleet::fleet(self.nodes, self.seed),
            token_lifetime: self.token_lifetime,
            faults: Mutex::new(self.faults),
            random: Mutex::new(fastrand::Rng::with_seed(self.seed)),
            stats: Mutex::default(),
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

    /// Misbehaves in these ways from now on, and in no other.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.state.faults) = faults;
    }

    /// What was asked so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        lock(&self.state.stats).clone()
    }
}

impl State {
    /// Takes note of a call, and decides how it fares.
    fn admit(&self, request: Value) -> Effect {
        let mut stats = lock(&self.stats);
        stats.calls += 1;
        stats.last_request = request;
        lock(&self.faults).draw(&mut lock(&self.random))
    }
}

/// Nothing that a panic could leave half done is kept under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
