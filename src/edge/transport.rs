//! From a bound address to HTTP/2: the listener and its drain, connections, TLS, and peers that misbehave below any
//! call.

mod address;
mod authority;
mod calls;
mod config;
mod connection;
mod drain;
mod frames;
mod greeting;
mod hpack;
mod listener;
mod peer_conduct;
mod socket;
#[doc(hidden)]
pub mod testing;
mod tls;

pub use self::{
    address::{Address, InvalidAddress},
    config::Config,
    listener::{ListenError, Listener},
    tls::Config as TlsConfig,
};
