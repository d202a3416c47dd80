//! Where callers connect: the listener and its drain, deadlines, and a log line a call. A layer a file.

mod call_log;
mod deadline;
mod error_info;
mod listener;
mod socket;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::Deserialize;

pub use self::{call_log::CallLogLayer, deadline::DeadlineLayer, error_info::with_error_info, listener::Listener};

/// How callers are served; the `[edge]` table of the configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address to bind; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The most calls at a time on one connection.
    pub max_concurrent_streams: u32,
    /// The most bytes of headers in one request.
    pub max_header_list_size: u32,
    /// How long a connection may be silent before it is probed.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// How long a probed connection may stay silent before it is closed.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// How long calls in flight may go on after a signal to stop.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            max_concurrent_streams: 256,
            max_header_list_size: 16 * 1024,
            keepalive_interval: Duration::from_mins(1),
            keepalive_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(10),
        }
    }
}
