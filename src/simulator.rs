//! A simulated SSM for `demo`, tests and benches. Answers `DescribeInstanceInformation` over HTTP in AWS JSON 1.1, as
//! observed from real AWS, from made-up fleets, one per account and region, and misbehaves on demand. Also answers
//! STS's `AssumeRole`. Shares no code with the SSM adapter, because both would then share the same mistakes.
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

mod clock;
mod config;
mod faults;
mod fleet;
mod identity;
mod operation;
mod server;
mod state;
mod sts;
mod token;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, task::JoinSet};

use self::state::{State, lock};
pub use self::{
    config::Config,
    faults::{Failure, FailureKind, Faults, ParseFailureError, Rate},
    identity::Scope,
    state::Stats,
};

/// A running simulator. Dropping the value stops the simulator and closes its connections.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

impl Config {
    /// Binds the address and serves in a task of its own. A fleet is made at the first call to it.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(self) -> io::Result<Simulator> {
        let socket = TcpListener::bind(self.listen).await?;
        let addr = socket.local_addr()?;
        let state = Arc::new(State::new(self));
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
