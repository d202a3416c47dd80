//! The SDK's clients, built from what a target's configuration and AWS's own variables and files say together.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, Region, identity::IdentityCache, imds::region::ImdsRegionProvider,
    provider_config::ProviderConfig, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;

use super::{
    build_error::BuildError,
    config::{Config, is_region},
    environment::Environment,
    http::{CaBundle, Http},
};

/// The settings that the clients of a target are built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Settings {
    pub(super) region: String,
    pub(super) ssm_endpoint: Option<String>,
    sts_endpoint: Option<String>,
    uses_fips: bool,
    uses_dual_stack: bool,
    trust: Option<CaBundle>,
    connect_timeout: Duration,
    pub(super) attempt_timeout: Duration,
    pub(super) retries: u32,
    pub(super) retry_backoff: Duration,
    max_answer_size: usize,
}

impl Settings {
    /// Takes what the configuration says, and what AWS's variables and files do where it says nothing.
    ///
    /// # Errors
    /// [`BuildError`], if there is no region, or the environment says what cannot be used.
    pub(super) async fn new(config: &Config, environment: &Environment) -> Result<Self, BuildError> {
        let bundle = config.ca_bundle.clone().or_else(|| environment.ca_bundle().map(Into::into));
        let said = |url: &Option<String>, service| {
            url.clone().map_or_else(|| environment.endpoint_url(service), |url| Ok(Some(url)))
        };
        let region = match config.region.as_deref().or_else(|| environment.region()) {
            Some(region) if !is_region(region) => return Err(BuildError::AwsRegion),
            Some(region) => region.to_owned(),
            None if environment.disables_metadata() => return Err(BuildError::NoRegion),
            None => region_of_instance(config).await.ok_or(BuildError::NoRegion)?,
        };
        Ok(Self {
            region,
            ssm_endpoint: said(&config.endpoint_url, "ssm")?,
            sts_endpoint: said(&config.sts_endpoint_url, "sts")?,
            uses_fips: environment.uses_fips(),
            uses_dual_stack: environment.uses_dual_stack(),
            trust: bundle.map(CaBundle::read).transpose()?,
            connect_timeout: config.connect_timeout,
            attempt_timeout: config.attempt_timeout,
            retries: config.retries,
            retry_backoff: config.retry_backoff,
            max_answer_size: config.max_answer_size,
        })
    }

    /// The same without what is SSM's and the region's: what credentials depend on.
    pub(super) fn of_credentials(&self) -> Self {
        Self { region: String::new(), ssm_endpoint: None, ..self.clone() }
    }

    pub(super) fn http(&self) -> Http {
        Http::new(self.trust.clone(), self.max_answer_size, self.attempt_timeout)
    }

    /// A client of SSM. Attempts of the SDK's own would escape the pace and share a quota with other targets, and its
    /// cache of credentials would hide why there are none.
    pub(super) fn ssm(&self, signer: SharedCredentialsProvider) -> aws_sdk_ssm::Client {
        let mut config = aws_sdk_ssm::Config::builder()
            .behavior_version(behavior())
            .region(Region::new(self.region.clone()))
            .use_fips(self.uses_fips)
            .use_dual_stack(self.uses_dual_stack)
            .http_client(self.http())
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.timeouts())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(signer);
        config.set_endpoint_url(self.ssm_endpoint.clone());
        aws_sdk_ssm::Client::from_conf(config.build())
    }

    /// A client of STS, whose requests bring the credentials that they are signed with, if any.
    pub(super) fn sts(&self, http: &Http) -> aws_sdk_sts::Client {
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(behavior())
            .region(Region::new(self.region.clone()))
            .use_fips(self.uses_fips)
            .use_dual_stack(self.uses_dual_stack)
            .http_client(http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.timeouts())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache());
        config.set_endpoint_url(self.sts_endpoint.clone());
        aws_sdk_sts::Client::from_conf(config.build())
    }

    /// Returns the configuration of the SDK's providers of credentials.
    pub(super) fn providers(&self, http: &Http) -> ProviderConfig {
        ProviderConfig::without_region()
            .with_region(Some(Region::new(self.region.clone())))
            .with_behavior_version(Some(behavior()))
            .with_use_fips(Some(self.uses_fips))
            .with_use_dual_stack(Some(self.uses_dual_stack))
            .with_http_client(http.clone())
            .with_retry_config(RetryConfig::disabled())
            .with_timeout_config(self.timeouts())
    }

    /// The bound of an attempt is the HTTP client's, which can say what it waited for; so is that of a stalled answer.
    fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder().connect_timeout(self.connect_timeout).build()
    }
}

async fn region_of_instance(config: &Config) -> Option<String> {
    let http = Http::new(None, config.max_answer_size, config.attempt_timeout);
    let config = ProviderConfig::without_region().with_http_client(http);
    let region = ImdsRegionProvider::builder().configure(&config).build().region().await?;
    Some(region.to_string())
}

fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}
