use std::sync::Arc;

use tracing::{info, warn};

use super::{error::AppError, process::Process, routes::Routes, source};
use crate::{
    aws::CredentialsCache,
    clock,
    config::{Config, ResolvedTarget},
    edge::{Authenticator, LimitsLayer},
    model::TargetName,
    read::{Listings, Target},
    service,
};

/// One generation of the serving state. A reload builds the next generation, which inherits listings, unchanged targets
/// and unchanged limits.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) config: Config,
    pub(super) listings: Listings,
    pub(super) routes: Routes,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) limits: LimitsLayer,
    pub(super) process: Arc<Process>,
}

impl Generation {
    /// Builds the generation that a process starts with.
    ///
    /// # Errors
    /// Every [`AppError`] but those of addresses.
    pub(super) async fn first(config: Config) -> Result<Self, AppError> {
        let process = Arc::new(Process::new()?);
        let targets = build_targets(&config, &process.credentials).await?;
        let listings = config.listing.build(targets, &service::Renderer, clock::wall);
        let limits = config.limits.build();
        Self::build(config, listings, limits, process).await
    }

    /// Builds what every generation has of its own around the parts that it may have inherited.
    ///
    /// # Errors
    /// [`AppError::Authenticator`], if the keys that JWTs are verified with cannot be loaded.
    pub(super) async fn build(
        config: Config,
        listings: Listings,
        limits: LimitsLayer,
        process: Arc<Process>,
    ) -> Result<Self, AppError> {
        let authenticator = Arc::new(build_authenticator(&config).await?);
        let routes = Routes::new(&config, &listings, &process.stages)?;
        Ok(Self { config, listings, routes, authenticator, limits, process })
    }

    pub(super) fn log_targets(&self) {
        for target in self.listings.targets() {
            info!(name = %target.name(), region = target.region(), "target");
        }
    }

    pub(super) fn log_unmatched_rules(&self) {
        for warning in self.config.unmatched() {
            warn!("{warning}");
        }
    }
}

/// Loads the keys that bearer tokens are verified with.
pub(super) async fn build_authenticator(config: &Config) -> Result<Authenticator, AppError> {
    Ok(config.auth.clone().build(config.has_client_certs(), config.edge.reload_interval).await?)
}

/// Builds every target of the configuration, one after the other. AWS is not asked.
pub(super) async fn build_targets(
    config: &Config,
    credentials: &CredentialsCache,
) -> Result<Vec<Arc<Target>>, AppError> {
    let mut targets = Vec::new();
    for (name, settings) in config.targets() {
        targets.push(build_target(name, settings, credentials).await?);
    }
    Ok(targets)
}

/// Builds one target.
pub(super) async fn build_target(
    name: TargetName,
    settings: ResolvedTarget,
    credentials: &CredentialsCache,
) -> Result<Arc<Target>, AppError> {
    let ResolvedTarget { upstream, ttl, max_stale } = settings;
    let (identity, source) =
        source::build(&name, upstream, credentials).await.map_err(|error| AppError::Upstream(name.clone(), error))?;
    Ok(Arc::new(Target::new(name, identity, source, ttl, max_stale)))
}
