//! From a socket to a call that may go on: `transport` accepts connections and speaks HTTP/2, `identity` knows what
//! proves a caller, and each of the `layers` admits, bounds or reports calls. Beside them stands what more than one of
//! them uses.

mod call_end;
mod credential;
mod cut;
mod health;
mod identity;
mod layers;
mod log_limiter;
mod metrics;
mod peer_timeout;
mod stage;
mod transport;
mod watched;

#[doc(hidden)]
pub use self::transport::testing;
pub use self::{
    health::Health,
    identity::{AuthConfig, Authenticator, JwtConfig, SigningAlgorithm, Token},
    layers::{
        ArrivalLayer, AuthenticateLayer, CatchPanicLayer, HeaderListLayer, LifetimeLayer, LimitsConfig, LimitsLayer,
        ObserveLayer, ProtocolLayer, RouteLayer,
    },
    metrics::Metrics,
    stage::{Stage, Stages},
    transport::{Address, Config, InvalidAddress, ListenError, Listener, TlsConfig},
    watched::FileError,
};
