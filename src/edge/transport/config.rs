use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{address::Address, tls::Config as TlsConfig};

/// The settings of connections; the `[edge]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address to bind.
    pub listen: Address,
    /// The gateway's certificate; absent, connections are not encrypted.
    pub tls: Option<TlsConfig>,
    /// The most connections at a time.
    pub max_connections: usize,
    /// How long a peer may take for the TLS handshake.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long a peer may take for what it has begun: its greeting, a frame, a block of headers, the message of a
    /// call.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
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
    /// How long a connection is used before its peer is sent away to open another one, a tenth more or less.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
    /// How long the calls in flight of such a connection may last after that.
    #[serde(with = "humantime_serde")]
    pub max_connection_age_grace: Duration,
    /// How long, after a signal to stop, connections and calls are accepted while health reports that the gateway is not
    /// serving.
    #[serde(with = "humantime_serde")]
    pub drain_delay: Duration,
    /// How long calls in flight may last after that. When three quarters of it have passed, they are ended with a status.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How often the gateway checks whether the files of certificates and keys have changed.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 50051))),
            tls: None,
            max_connections: 10_000,
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            max_concurrent_streams: 256,
            max_header_list_size: 16 * 1024,
            keepalive_interval: Duration::from_mins(1),
            keepalive_timeout: Duration::from_secs(20),
            max_connection_age: Duration::from_mins(30),
            max_connection_age_grace: Duration::from_mins(5),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            reload_interval: Duration::from_secs(5),
        }
    }
}
