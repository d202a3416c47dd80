use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::faults::Faults;

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
