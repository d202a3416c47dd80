//! The configuration file. Each component defines and checks its own table; a key that is absent has its default.

mod check;
mod invalid;
mod line;
mod redacted;
mod target;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::target::{ResolvedTarget, Target};
use crate::{
    access::{Allow, Policy, glob},
    admin, aws,
    display::{FileName, Shown},
    edge,
    model::TargetName,
    read, service,
    setting::InvalidSetting,
    telemetry,
};

/// The whole configuration: a TOML table for each component.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The target that is asked where a request names none; absent, the only one, or the one named `default`.
    pub default_target: Option<TargetName>,
    /// How callers connect.
    pub edge: edge::Config,
    /// How callers authenticate.
    pub auth: edge::AuthConfig,
    /// What each principal may call, and about which targets.
    pub allow: Vec<Allow>,
    /// How much callers may ask for.
    pub limits: edge::LimitsConfig,
    /// The limits of requests and answers.
    pub service: service::Config,
    /// How SSM is reached, for every target that does not set it.
    pub upstream: aws::Config,
    /// The bounds of listings.
    pub listing: read::Config,
    /// The targets; without any, `[upstream]` describes a single one, named `default`.
    pub targets: BTreeMap<TargetName, Target>,
    /// The address for administrators.
    pub admin: admin::Config,
    /// How the gateway logs.
    pub log: telemetry::LogConfig,
    /// Where traces go.
    pub trace: telemetry::TraceConfig,
}

/// A failure to read a configuration, or a setting in it that breaks a rule.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("could not read the configuration file {}", FileName(.0))]
    Read(PathBuf, #[source] io::Error),
    /// The file is not TOML, or has an unknown key, or a value of the wrong type.
    #[error("the configuration file {} is wrong{}: {reason}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line that is wrong, from 1.
        line: Option<usize>,
        /// What is wrong, without the value: it may be a secret at the wrong key.
        reason: String,
    },
    /// A setting breaks a rule.
    #[error("{}{key} {rule}", place(source_file.as_ref()))]
    Value {
        /// The file and the line of the setting, if it is written in a file.
        source_file: Option<(PathBuf, usize)>,
        /// The tables of the setting and its name, joined by dots.
        key: String,
        /// The rule, as the rest of a sentence that begins with the key.
        rule: String,
    },
}

impl ConfigError {
    fn value(InvalidSetting { key, rule }: InvalidSetting, source_file: Option<(PathBuf, usize)>) -> Self {
        Self::Value { source_file, key: key.join("."), rule }
    }
}

fn place(written: Option<&(PathBuf, usize)>) -> String {
    written.map(|(path, line)| format!("{}, line {line}: ", path.display())).unwrap_or_default()
}

impl Config {
    /// Reads a TOML file, or nothing, applies `overrides`, and checks the result.
    ///
    /// ```
    /// use ssm_gateway::config::Config;
    ///
    /// let config = Config::load(None, |config| config.limits.max_calls = 100).expect("the defaults are valid");
    /// assert_eq!(config.edge.listen.to_string(), "127.0.0.1:50051");
    ///
    /// let error = Config::load(None, |config| config.limits.max_calls = 0).unwrap_err();
    /// assert_eq!(error.to_string(), "limits.max_calls must be more than 0");
    /// ```
    ///
    /// # Errors
    /// The file cannot be read or parsed, or a setting breaks a rule. The error names the file and the line.
    pub fn load(path: Option<&Path>, overrides: impl FnOnce(&mut Self)) -> Result<Self, ConfigError> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| ConfigError::Read(path.to_owned(), error));
        Self::parse(&path.map(read).transpose()?.unwrap_or_default(), path, overrides)
    }

    /// Does what [`Config::load`] does, with a text that was read from `path`. Public for the fuzzer alone.
    ///
    /// # Errors
    /// As for [`Config::load`], but for the file.
    #[doc(hidden)]
    pub fn parse(text: &str, path: Option<&Path>, overrides: impl FnOnce(&mut Self)) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.map(Path::to_owned).unwrap_or_default(),
            line: invalid::line(text, &error),
            reason: invalid::reason(&error),
        })?;
        overrides(&mut config);
        config.check_settings().map_err(|invalid| {
            let source_file = path.map(Path::to_owned).zip(line::of(text, &invalid.key));
            ConfigError::value(invalid, source_file)
        })?;
        Ok(config)
    }

    /// Checks every setting, by itself and with the others.
    ///
    /// # Errors
    /// [`ConfigError::Value`], for the first setting that breaks a rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_settings().map_err(|invalid| ConfigError::value(invalid, None))
    }

    /// Returns whether callers can prove who they are: by a token or by a certificate.
    #[must_use]
    pub fn has_authentication(&self) -> bool {
        self.auth.has_tokens() || self.has_client_certs()
    }

    /// Returns whether callers can prove who they are by a client certificate.
    #[must_use]
    pub fn has_client_certs(&self) -> bool {
        self.edge.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// Returns the policy. Without authentication and without rules everybody may call everything.
    #[must_use]
    pub fn policy(&self) -> Policy {
        if self.allow.is_empty() && !self.has_authentication() {
            Policy::Open
        } else {
            Policy::Rules(self.allow.clone())
        }
    }

    /// Returns a warning for each pattern in a rule's `targets` that matches no target: more likely a mistake than
    /// intended.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let targets = self.targets();
        let is_unmatched = |pattern: &&String| !targets.keys().any(|target| glob::matches(pattern, target.as_str()));
        let rules = self.allow.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.targets.as_ref()?)));
        let unmatched = rules.flat_map(|(index, patterns)| {
            patterns
                .iter()
                .filter(is_unmatched)
                .map(move |pattern| format!("allow.{index}.targets: no target matches {}", Shown(pattern)))
        });
        unmatched.collect()
    }

    /// Returns every target, with the settings that it inherits.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<TargetName, ResolvedTarget> {
        let resolve = |target: &Target| target.resolve(&self.upstream, &self.listing);
        if self.targets.is_empty() {
            return [(TargetName::default_target(), resolve(&Target::default()))].into();
        }
        self.targets.iter().map(|(name, target)| (name.clone(), resolve(target))).collect()
    }

    /// Returns whether the gateway is ready only once this target has answered.
    #[must_use]
    pub fn is_required(&self, target: &TargetName) -> bool {
        self.targets.get(target).is_some_and(|target| target.required)
    }

    /// Returns the target that is asked where a request names none, if there is one.
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
        let ResolvedTarget { upstream, ttl, max_stale } = &targets[&TargetName::from("prod-eu")];
        assert_eq!((upstream.region.as_deref(), upstream.external_id.as_deref()), (Some("eu-west-1"), Some("shared")));
        assert_eq!((upstream.attempt_timeout.as_secs(), upstream.fetch_timeout.as_secs()), (2, 30));
        assert_eq!((*ttl, *max_stale), (Duration::from_mins(5), Duration::from_mins(5)));
        let ResolvedTarget { upstream, ttl, .. } = &targets[&TargetName::from("prod-us")];
        assert_eq!((upstream.region.as_deref(), upstream.role_arn.as_deref()), (Some("us-east-1"), None));
        assert_eq!(*ttl, Duration::from_mins(1));
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
