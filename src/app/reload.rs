//! From one generation to the next: what a reload replaces, what it keeps, and what it refuses.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    current::CurrentGeneration,
    error::AppError,
    generation::{Generation, build_target},
};
use crate::{
    config::{Config, ConfigError},
    display::ErrorChain,
    read::{self, Target},
};

/// The newest configuration, as it was read; none before the first reload.
pub(super) type Newest = Option<Arc<Result<Box<Config>, ConfigError>>>;

/// Puts each new configuration into use, and keeps the required targets of the generation that serves warmed up.
pub(super) async fn keep_reloading<S>(current: &CurrentGeneration<S>, mut configs: watch::Receiver<Newest>) {
    loop {
        let _warm_up = current.get().warm_up();
        let Some(next) = usable_generation(&current.get(), &mut configs).await else { return };
        let next = Arc::new(next);
        // Latched before the targets change: nobody may have probed since the last of them answered.
        current.get().latch_readiness();
        current.replace(Arc::clone(&next));
        next.listings.drop_other_targets();
        next.log_unmatched_rules();
        info!(targets = next.listings.targets().count(), "the configuration is in use");
    }
}

/// Waits for a configuration that can be used, and returns the generation that it makes of `running`. None once no
/// further configuration can come.
async fn usable_generation(running: &Generation, configs: &mut watch::Receiver<Newest>) -> Option<Generation> {
    while configs.changed().await.is_ok() {
        let Some(read) = configs.borrow_and_update().clone() else { continue };
        let next = match &*read {
            Ok(config) => running.next(Config::clone(config)).await.map_err(|error| ErrorChain(&error).to_string()),
            Err(error) => Err(ErrorChain(error).to_string()),
        };
        running.process.has_reload_failed.store(next.is_err(), Relaxed);
        match next {
            Ok(next) => return Some(next),
            Err(error) => error!(%error, "the configuration cannot be used: the old one stays in use"),
        }
    }
    None
}

impl Generation {
    /// Builds the generation that serves by `config` after this one, whole or not at all.
    ///
    /// # Errors
    /// [`AppError`], if the configuration, a file that it names or one of its targets cannot be used.
    async fn next(&self, mut config: Config) -> Result<Self, AppError> {
        // Its files are used after a restart only, but what is wrong with them should be known before that.
        config.edge.check_files().await?;
        let fixed = keep_fixed(&mut config, &self.config);
        config.check()?;
        refuse_to_open(&config, &self.config)?;
        let listings = self.listings.with_targets(self.next_targets(&config).await?);
        let is_counted_alike = config.limits.counts_as(&self.config.limits);
        let limits = if is_counted_alike { self.limits.clone() } else { config.limits.build() };
        let next = Self::build(config, listings, limits, Arc::clone(&self.process)).await?;
        for table in fixed {
            warn!(table, "the table has changed, and is used after a restart");
        }
        Ok(next)
    }

    /// Returns the targets of `config`: those that it leaves as they are, with all that is known of them, and the
    /// others anew.
    async fn next_targets(&self, config: &Config) -> Result<Vec<Arc<Target>>, AppError> {
        let running = self.config.targets();
        let mut targets = Vec::new();
        for (name, settings) in config.targets() {
            let unchanged = self.listings.target(&name).filter(|_| running.get(&name) == Some(&settings));
            targets.push(match unchanged {
                Some(target) => Arc::clone(target),
                None => build_target(name, settings, &self.process.credentials).await?,
            });
        }
        Ok(targets)
    }
}

/// Puts the settings that only a restart changes back to those that run. Returns the names of the tables that differed.
fn keep_fixed(config: &mut Config, running: &Config) -> Vec<&'static str> {
    // Named one by one, so that a new table does not compile before somebody has decided whether a reload changes it.
    let Config {
        edge,
        listing,
        admin,
        log,
        trace,
        default_target: _,
        auth: _,
        allow: _,
        limits: _,
        service: _,
        upstream: _,
        targets: _,
    } = config;
    let kept_listing = read::Config { ttl: listing.ttl, max_stale: listing.max_stale, ..running.listing };
    let tables = [
        ("edge", keep(edge, &running.edge)),
        ("listing", keep(listing, &kept_listing)),
        ("admin", keep(admin, &running.admin)),
        ("trace", keep(trace, &running.trace)),
        ("log", keep(log, &running.log)),
    ];
    tables.into_iter().filter_map(|(table, has_changed)| has_changed.then_some(table)).collect()
}

/// Replaces `table` by the one that runs. Returns whether they differed.
fn keep<T: Clone + PartialEq>(table: &mut T, running: &T) -> bool {
    mem::replace(table, running.clone()) != *running
}

/// Rejects a configuration that would open a guarded gateway to everybody without saying so: an empty file would, and
/// is more likely a mistake. A gateway may be started by the same file.
fn refuse_to_open(config: &Config, running: &Config) -> Result<(), ConfigError> {
    if config.has_authentication() || config.auth.allow_anonymous || !running.has_authentication() {
        return Ok(());
    }
    let rule = "is gone, and everybody could call: say allow_anonymous, or restart";
    Err(ConfigError::Value { source_file: None, key: "auth".to_owned(), rule: rule.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_restart_alone_changes_stays_as_it_runs_and_is_named() {
        let running = Config::default();
        let mut config = Config::default();
        config.limits.max_calls = 7;
        config.listing.ttl = Duration::from_secs(7);
        assert_eq!(keep_fixed(&mut config, &running), [""; 0], "a reload changes these");
        config.listing.max_bytes = 7;
        config.edge.max_connections = 7;
        config.log.filter = "debug".to_owned();
        assert_eq!(keep_fixed(&mut config, &running), ["edge", "listing", "log"]);
        assert_eq!((config.limits.max_calls, config.listing.ttl), (7, Duration::from_secs(7)));
        assert_eq!(config.listing.max_bytes, running.listing.max_bytes);
        assert_eq!((&config.edge, &config.log), (&running.edge, &running.log));
    }
}
