//! The composition root: from a configuration to a running gateway. The only place that knows every component.
//!
//! | part | what it does |
//! | --- | --- |
//! | `error` | failures to build or to reload |
//! | `generation` | builds what calls are served by, of one configuration |
//! | `process` | keeps what no reload replaces |
//! | `source` | puts the adapter that asks AWS into its decorators |
//! | `routes`, `stack` | every method, and the layers that a call goes through before one |
//! | `current` | switches calls and administrators from one generation to the next |
//! | `run` | turns signals into stages and reloads |
//! | `reload` | decides what the next generation keeps of the one that runs |
//! | `readiness` | asks the required targets, and latches readiness |
//! | `view`, `metrics`, `process_usage` | answer administrators and Prometheus |

mod current;
mod error;
mod generation;
mod metrics;
mod process;
mod process_usage;
mod readiness;
mod reload;
mod routes;
mod run;
mod source;
mod stack;
mod view;

use std::{net::SocketAddr, sync::Arc};

pub use self::error::AppError;
use self::generation::{Generation, build_authenticator, build_targets};
use crate::{
    admin::Admin,
    aws::CredentialsCache,
    config::{Config, ConfigError},
    edge::{Address, LimitsLayer, Listener},
    read::{Listings, Target},
};

/// A gateway that is bound and ready to serve.
///
/// ```no_run
/// use futures_util::stream;
/// use ssm_gateway::{
///     app::{App, Signal},
///     config::Config,
/// };
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::load(Some("gateway.toml".as_ref()), |_| {})?;
/// let gateway = App::build(config).await?;
/// println!("callers: {}, administrators: {}", gateway.addr(), gateway.admin_addr());
/// // Drains at the first Ctrl-C, and stops at once at the second.
/// let signals = stream::unfold((), async |()| tokio::signal::ctrl_c().await.ok().map(|()| (Signal::Stop, ())));
/// gateway.serve(signals).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct App {
    listener: Listener,
    admin: Admin,
    generation: Generation,
}

/// A request to a running gateway, from outside of it.
#[derive(Debug)]
pub enum Signal {
    /// Use another configuration from now on, or report why it could not be read.
    Reload(Result<Box<Config>, ConfigError>),
    /// Drain, and stop; the second time, stop at once.
    Stop,
}

impl App {
    /// Builds every component and binds both addresses. AWS is not asked yet.
    ///
    /// # Errors
    /// [`AppError`], for the first component that cannot be built.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        let generation = Generation::first(config).await?;
        let listener = generation.config.edge.clone().bind().await?;
        let admin = generation.config.admin.clone().bind().await?;
        Ok(Self { listener, admin, generation })
    }

    /// Builds every target, as [`App::build`] does. AWS is not asked.
    ///
    /// # Errors
    /// [`AppError::Upstream`], for the first target that cannot be built.
    pub async fn targets(config: &Config) -> Result<Vec<Arc<Target>>, AppError> {
        build_targets(config, &CredentialsCache::default()).await
    }

    /// Reads the certificates and keys that the configuration names, as [`App::build`] does.
    ///
    /// # Errors
    /// [`AppError::Listen`] and [`AppError::Authenticator`], for a file that cannot be used.
    pub async fn check_files(config: &Config) -> Result<(), AppError> {
        config.edge.check_files().await?;
        build_authenticator(config).await.map(drop)
    }

    /// Returns the address for callers, with the port that was chosen.
    pub fn addr(&self) -> &Address {
        self.listener.addr()
    }

    /// Returns the address for administrators, with the port that was chosen.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Returns the listings that the gateway was built with, for tests to look into.
    #[doc(hidden)]
    pub fn listings(&self) -> &Listings {
        &self.generation.listings
    }

    /// Returns the limits that the gateway was built with, for tests to look into.
    #[doc(hidden)]
    pub fn limits(&self) -> &LimitsLayer {
        &self.generation.limits
    }
}
