use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{address::Address, tls::Config as TlsConfig};
use crate::setting::{InvalidSetting, bounded, positive, positive_bounded, require};

/// The fewest bytes of headers that every call of gRPC fits into.
const LEAST_HEADERS: u32 = 1024;

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
    /// How long, after a signal to stop, connections and calls are accepted while health reports that the gateway is
    /// not serving.
    #[serde(with = "humantime_serde")]
    pub drain_delay: Duration,
    /// How long calls in flight may last after that. When three quarters of it have passed, they are ended with a
    /// status.
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

impl Config {
    /// Checks every setting by itself. Who may call at the address is for `[auth]` and the policy to say, too.
    ///
    /// # Errors
    /// The first setting that every connection or call would fail by.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let &Self {
            listen: _,
            tls: _,
            max_connections,
            handshake_timeout,
            request_timeout,
            max_concurrent_streams,
            max_header_list_size,
            keepalive_interval,
            keepalive_timeout,
            max_connection_age,
            max_connection_age_grace,
            drain_delay,
            drain_timeout,
            reload_interval,
        } = self;
        require(max_concurrent_streams >= 2, "max_concurrent_streams", "must be at least 2")?;
        require(max_header_list_size >= LEAST_HEADERS, "max_header_list_size", "must be at least 1024")?;
        positive("max_connections", max_connections)?;
        positive_bounded("handshake_timeout", handshake_timeout)?;
        positive_bounded("request_timeout", request_timeout)?;
        positive_bounded("keepalive_interval", keepalive_interval)?;
        positive_bounded("keepalive_timeout", keepalive_timeout)?;
        positive_bounded("max_connection_age", max_connection_age)?;
        bounded("max_connection_age_grace", max_connection_age_grace)?;
        bounded("drain_delay", drain_delay)?;
        bounded("drain_timeout", drain_timeout)?;
        positive_bounded("reload_interval", reload_interval)
    }
}
