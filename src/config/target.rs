use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    aws, read,
    setting::{InvalidSetting, bounded},
};

/// A `[targets.NAME]` table of the configuration file: what it does not set is as `[upstream]` and `[listing]` have it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// See [`aws::Config::region`].
    pub region: Option<String>,
    /// See [`aws::Config::endpoint_url`].
    pub endpoint_url: Option<String>,
    /// See [`aws::Config::sts_endpoint_url`].
    pub sts_endpoint_url: Option<String>,
    /// See [`aws::Config::profile`].
    pub profile: Option<String>,
    /// See [`aws::Config::role_arn`].
    pub role_arn: Option<String>,
    /// See [`aws::Config::external_id`].
    pub external_id: Option<String>,
    /// See [`aws::Config::session_name`].
    pub session_name: Option<String>,
    /// See [`aws::Config::ca_bundle`].
    pub ca_bundle: Option<PathBuf>,
    /// Whether the gateway is ready only once this target has answered.
    pub required: bool,
    /// See [`aws::Config::requests_per_second`].
    pub requests_per_second: Option<f64>,
    /// See [`aws::Config::connect_timeout`].
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Option<Duration>,
    /// See [`aws::Config::attempt_timeout`].
    #[serde(with = "humantime_serde")]
    pub attempt_timeout: Option<Duration>,
    /// See [`aws::Config::fetch_timeout`].
    #[serde(with = "humantime_serde")]
    pub fetch_timeout: Option<Duration>,
    /// See [`read::Config::ttl`].
    #[serde(with = "humantime_serde")]
    pub ttl: Option<Duration>,
    /// See [`read::Config::max_stale`].
    #[serde(with = "humantime_serde")]
    pub max_stale: Option<Duration>,
}

/// A target with every setting of its own or inherited.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedTarget {
    /// How SSM is reached for this target.
    pub upstream: aws::Config,
    /// See [`read::Config::ttl`].
    pub ttl: Duration,
    /// See [`read::Config::max_stale`].
    pub max_stale: Duration,
}

impl Target {
    /// Returns the target with what it does not set taken from `[upstream]` and `[listing]`.
    ///
    /// The fields are named one by one, so that a new key of a target or of `[upstream]` does not compile before
    /// somebody has decided whether a target may set it.
    pub(super) fn resolve(&self, upstream: &aws::Config, listing: &read::Config) -> ResolvedTarget {
        let Self {
            region,
            endpoint_url,
            sts_endpoint_url,
            profile,
            role_arn,
            external_id,
            session_name,
            ca_bundle,
            required: _,
            requests_per_second,
            connect_timeout,
            attempt_timeout,
            fetch_timeout,
            ttl,
            max_stale,
        } = self.clone();
        let inherited = upstream.clone();
        ResolvedTarget {
            upstream: aws::Config {
                region: region.or(inherited.region),
                endpoint_url: endpoint_url.or(inherited.endpoint_url),
                sts_endpoint_url: sts_endpoint_url.or(inherited.sts_endpoint_url),
                profile: profile.or(inherited.profile),
                role_arn: role_arn.or(inherited.role_arn),
                external_id: external_id.or(inherited.external_id),
                session_name: session_name.or(inherited.session_name),
                ca_bundle: ca_bundle.or(inherited.ca_bundle),
                requests_per_second: requests_per_second.unwrap_or(inherited.requests_per_second),
                connect_timeout: connect_timeout.unwrap_or(inherited.connect_timeout),
                attempt_timeout: attempt_timeout.unwrap_or(inherited.attempt_timeout),
                fetch_timeout: fetch_timeout.unwrap_or(inherited.fetch_timeout),
                // Set for all targets together.
                longest_line: inherited.longest_line,
                retries: inherited.retries,
                retry_backoff: inherited.retry_backoff,
                max_answer_size: inherited.max_answer_size,
                simulated_credentials: inherited.simulated_credentials,
            },
            ttl: ttl.unwrap_or(listing.ttl),
            max_stale: max_stale.unwrap_or(listing.max_stale),
        }
    }
}

impl ResolvedTarget {
    /// Checks every setting, inherited ones included: two that are right by themselves may be wrong together.
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        let Self { upstream, ttl, max_stale } = self;
        upstream.check()?;
        bounded("ttl", *ttl)?;
        bounded("max_stale", *max_stale)
    }
}
