//! The configuration file. Each component defines its own part; what is absent has its default.

mod check;
mod invalid;
mod line;
mod redacted;

use std::{
    collections::BTreeMap,
    fs, io, mem,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::check::Wrong;
use crate::{
    access::{Allow, Policy, glob},
    admin,
    display::{FileName, Shown},
    edge, listing,
    model::TargetName,
    service, telemetry, upstream,
};

/// All of the configuration, a TOML table a component.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The target that is asked where none is named; absent, the only one, or the one named `default`.
    pub default_target: Option<TargetName>,
    /// How callers connect.
    pub edge: edge::Config,
    /// How they prove who they are.
    pub auth: edge::AuthConfig,
    /// Who may ask what.
    pub allow: Vec<Allow>,
    /// How much they may ask for.
    pub limits: edge::LimitsConfig,
    /// What requests and answers may be.
    pub service: service::Config,
    /// How SSM is reached, for all targets that do not say.
    pub upstream: upstream::Config,
    /// The bounds of listings.
    pub listing: listing::Config,
    /// The targets; where there are none, `upstream` is one, named `default`.
    pub targets: BTreeMap<TargetName, Target>,
    /// Where administrators ask.
    pub admin: admin::Config,
    /// How to log.
    pub log: telemetry::LogConfig,
    /// Where traces go.
    pub trace: telemetry::TraceConfig,
}

/// What a target has of its own; all else is as `[upstream]` and `[listing]` say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// See [`upstream::Config::region`].
    pub region: Option<String>,
    /// See [`upstream::Config::endpoint_url`].
    pub endpoint_url: Option<String>,
    /// See [`upstream::Config::sts_endpoint_url`].
    pub sts_endpoint_url: Option<String>,
    /// See [`upstream::Config::profile`].
    pub profile: Option<String>,
    /// See [`upstream::Config::role_arn`].
    pub role_arn: Option<String>,
    /// See [`upstream::Config::external_id`].
    pub external_id: Option<String>,
    /// See [`upstream::Config::session_name`].
    pub session_name: Option<String>,
    /// See [`upstream::Config::ca_bundle`].
    pub ca_bundle: Option<PathBuf>,
    /// Whether the gateway is ready only once this target has answered.
    pub required: bool,
    /// See [`upstream::Config::requests_per_second`].
    pub requests_per_second: Option<f64>,
    /// See [`upstream::Config::connect_timeout`].
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Option<Duration>,
    /// See [`upstream::Config::attempt_timeout`].
    #[serde(with = "humantime_serde")]
    pub attempt_timeout: Option<Duration>,
    /// See [`upstream::Config::fetch_timeout`].
    #[serde(with = "humantime_serde")]
    pub fetch_timeout: Option<Duration>,
    /// See [`listing::Config::ttl`].
    #[serde(with = "humantime_serde")]
    pub ttl: Option<Duration>,
    /// See [`listing::Config::max_stale`].
    #[serde(with = "humantime_serde")]
    pub max_stale: Option<Duration>,
}

/// Why the configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("could not read the configuration file {}", FileName(.0))]
    Read(PathBuf, #[source] io::Error),
    /// It is not TOML, or has a key or value that is not known.
    #[error("the configuration file {} is wrong{}: {reason}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        line: Option<usize>,
        /// What is wrong, without the value: it may be a secret that stands at the wrong key.
        reason: String,
    },
    /// A setting has a value that it must not have.
    #[error("{}{key} {rule}", place(source_file.as_ref()))]
    Value {
        /// The file and the line, if it is written in one.
        source_file: Option<(PathBuf, usize)>,
        /// The setting, by its tables.
        key: String,
        /// What it must be.
        rule: String,
    },
}

impl ConfigError {
    fn value(Wrong { key, rule }: Wrong, source_file: Option<(PathBuf, usize)>) -> Self {
        Self::Value { source_file, key: key.join("."), rule }
    }
}

fn place(written: Option<&(PathBuf, usize)>) -> String {
    written.map(|(path, line)| format!("{}, line {line}: ", path.display())).unwrap_or_default()
}

impl Config {
    /// Reads a TOML file, if there is one, and checks what comes of it when the environment and the flags are heard, too.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: Option<&Path>, overrides: impl FnOnce(&mut Self)) -> Result<Self, ConfigError> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| ConfigError::Read(path.to_owned(), error));
        Self::parse(&path.map(read).transpose()?.unwrap_or_default(), path, overrides)
    }

    /// The same, of a text that was read from `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: Option<&Path>, overrides: impl FnOnce(&mut Self)) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.map(Path::to_owned).unwrap_or_default(),
            line: invalid::line(text, &error),
            reason: invalid::reason(&error),
        })?;
        overrides(&mut config);
        check::check(&config).map_err(|wrong| {
            let source_file = path.map(Path::to_owned).zip(line::of(text, &wrong.key));
            ConfigError::value(wrong, source_file)
        })?;
        Ok(config)
    }

    /// Puts what a running gateway cannot take over as it was, and checks what comes of it. Tells which tables were put so.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn keep_fixed(&mut self, running: &Self) -> Result<Vec<&'static str>, ConfigError> {
        let listing = listing::Config { ttl: self.listing.ttl, max_stale: self.listing.max_stale, ..running.listing };
        let tables = [
            ("edge", mem::replace(&mut self.edge, running.edge.clone()) != running.edge),
            ("listing", mem::replace(&mut self.listing, listing) != listing),
            ("admin", mem::replace(&mut self.admin, running.admin.clone()) != running.admin),
            ("trace", mem::replace(&mut self.trace, running.trace.clone()) != running.trace),
            ("log", mem::replace(&mut self.log, running.log.clone()) != running.log),
        ];
        let checked = check::check(self).and_then(|()| check::reload(self, running));
        checked.map_err(|wrong| ConfigError::value(wrong, None))?;
        Ok(tables.into_iter().filter_map(|(table, is_changed)| is_changed.then_some(table)).collect())
    }

    /// Whether callers can prove who they are.
    #[must_use]
    pub fn has_authentication(&self) -> bool {
        self.auth.has_tokens() || self.has_client_certs()
    }

    /// Whether connections can.
    #[must_use]
    pub fn has_client_certs(&self) -> bool {
        self.edge.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// Who may ask what: where nobody can prove anything and nothing is said, everybody everything.
    #[must_use]
    pub fn policy(&self) -> Policy {
        if self.allow.is_empty() && !self.has_authentication() {
            Policy::Open
        } else {
            Policy::Rules(self.allow.clone())
        }
    }

    /// What is allowed about targets that there are none of: more likely a mistake than meant.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let targets = self.targets();
        let is_unmatched = |pattern: &&String| !targets.keys().any(|target| glob::matches(pattern, target.as_str()));
        let rules = self.allow.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.targets.as_ref()?)));
        let unmatched = rules.flat_map(|(index, patterns)| {
            patterns
                .iter()
                .filter(is_unmatched)
                .map(move |pattern| format!("allow.{index}.targets: no target is meant by {}", Shown(pattern)))
        });
        unmatched.collect()
    }

    /// Every target with all that it inherits.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<TargetName, (upstream::Config, listing::Config)> {
        let inherit = |target: &Target| (target.upstream(&self.upstream), target.listing(&self.listing));
        if self.targets.is_empty() {
            return [(TargetName::default_target(), inherit(&Target::default()))].into();
        }
        self.targets.iter().map(|(name, target)| (name.clone(), inherit(target))).collect()
    }

    /// Whether the gateway is ready only once this target has answered.
    #[must_use]
    pub fn is_required(&self, target: &TargetName) -> bool {
        self.targets.get(target).is_some_and(|target| target.required)
    }

    /// The target that is asked where none is named, if there is one.
    #[must_use]
    pub fn default_target(&self) -> Option<TargetName> {
        let default = TargetName::default_target();
        let only = self.targets.keys().next().filter(|_| self.targets.len() == 1);
        match (&self.default_target, only) {
            (Some(named), _) => Some(named.clone()),
            (None, Some(only)) => Some(only.clone()),
            _ => (self.targets.is_empty() || self.targets.contains_key(&default)).then_some(default),
        }
    }
}

impl Target {
    fn upstream(&self, inherited: &upstream::Config) -> upstream::Config {
        let or = |own: &Option<String>, inherited: &Option<String>| own.clone().or_else(|| inherited.clone());
        upstream::Config {
            region: or(&self.region, &inherited.region),
            endpoint_url: or(&self.endpoint_url, &inherited.endpoint_url),
            sts_endpoint_url: or(&self.sts_endpoint_url, &inherited.sts_endpoint_url),
            profile: or(&self.profile, &inherited.profile),
            role_arn: or(&self.role_arn, &inherited.role_arn),
            external_id: or(&self.external_id, &inherited.external_id),
            session_name: or(&self.session_name, &inherited.session_name),
            ca_bundle: self.ca_bundle.clone().or_else(|| inherited.ca_bundle.clone()),
            requests_per_second: self.requests_per_second.unwrap_or(inherited.requests_per_second),
            connect_timeout: self.connect_timeout.unwrap_or(inherited.connect_timeout),
            attempt_timeout: self.attempt_timeout.unwrap_or(inherited.attempt_timeout),
            fetch_timeout: self.fetch_timeout.unwrap_or(inherited.fetch_timeout),
            ..inherited.clone()
        }
    }

    fn listing(&self, inherited: &listing::Config) -> listing::Config {
        let (ttl, max_stale) = (self.ttl.unwrap_or(inherited.ttl), self.max_stale.unwrap_or(inherited.max_stale));
        listing::Config { ttl, max_stale, ..*inherited }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_part_is_read_and_what_is_absent_has_its_default() {
        let config: Config = toml::from_str(
            r#"
            [edge]
            listen = "127.0.0.1:0"
            drain_timeout = "3s"
            [upstream]
            region = "eu-west-1"
            attempt_timeout = "1500ms"
            [listing]
            cursor_lifetime = "30m"
            [log]
            format = "json"
            "#,
        )
        .unwrap();
        assert_eq!(config.edge.drain_timeout, Duration::from_secs(3));
        assert_eq!(config.upstream.region.as_deref(), Some("eu-west-1"));
        assert_eq!(config.upstream.attempt_timeout, Duration::from_millis(1500));
        assert_eq!(config.upstream.connect_timeout, Duration::from_secs(3));
        assert_eq!(config.listing.cursor_lifetime, Duration::from_mins(30));
        assert_eq!(config.log.format, telemetry::Format::Json);
    }

    #[test]
    fn a_target_has_what_it_says_and_inherits_the_rest() {
        let config: Config = toml::from_str(
            r#"
            default_target = "prod-eu"
            [upstream]
            region = "us-east-1"
            external_id = "shared"
            [listing]
            max_stale = "5m"
            [targets.prod-eu]
            region = "eu-west-1"
            role_arn = "arn:aws:iam::111122223333:role/SsmReader"
            attempt_timeout = "2s"
            ttl = "5m"
            [targets.prod-us]
            "#,
        )
        .unwrap();
        let targets = config.targets();
        let (upstream, listing) = &targets[&TargetName::from("prod-eu")];
        assert_eq!((upstream.region.as_deref(), upstream.external_id.as_deref()), (Some("eu-west-1"), Some("shared")));
        assert_eq!((upstream.attempt_timeout.as_secs(), upstream.fetch_timeout.as_secs()), (2, 30));
        assert_eq!((listing.ttl, listing.max_stale), (Duration::from_mins(5), Duration::from_mins(5)));
        let (upstream, listing) = &targets[&TargetName::from("prod-us")];
        assert_eq!((upstream.region.as_deref(), upstream.role_arn.as_deref()), (Some("us-east-1"), None));
        assert_eq!(listing.ttl, Duration::from_mins(1));
        assert_eq!(config.default_target(), Some("prod-eu".into()));
    }

    #[test]
    fn the_default_target_is_the_one_that_is_named_or_the_only_one_or_the_one_of_that_name() {
        let default = |text: &str| toml::from_str::<Config>(text).unwrap().default_target();
        assert_eq!(default(""), Some(TargetName::default_target()));
        assert_eq!(default("[targets.prod]"), Some("prod".into()));
        assert_eq!(default("[targets.prod]\n[targets.default]"), Some(TargetName::default_target()));
        assert_eq!(default("[targets.prod]\n[targets.test]"), None);
        assert_eq!(default("default_target = 'test'\n[targets.prod]\n[targets.test]"), Some("test".into()));
    }

    #[test]
    fn a_name_that_callers_could_not_ask_for_is_refused() {
        for name in ["'a*'", "''", "'a b'", "'a,b'"] {
            assert!(toml::from_str::<Config>(&format!("[targets.{name}]")).is_err(), "{name}");
        }
    }
}
