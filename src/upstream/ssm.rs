use std::{fmt, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_ssm::{
    Client, config::Credentials, operation::describe_instance_information::DescribeInstanceInformationOutput,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::Uri;
use serde::Deserialize;
use tokio::time;

use super::{Upstream, UpstreamError, UpstreamPage, convert, error::OperationError};
use crate::model::Filters;

/// How many records are asked for at a time: AWS's most.
const PAGE_SIZE: i32 = 50;

/// How a target's SSM is reached; the `[upstream]` table of the configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The AWS region; absent, what the SDK finds in `AWS_REGION`, the profile or the instance's metadata.
    pub region: Option<String>,
    /// Another endpoint than the region's own; absent, what the SDK finds in `AWS_ENDPOINT_URL_SSM` and the like.
    pub endpoint_url: Option<String>,
    /// The profile in AWS's shared files; absent, `AWS_PROFILE` or `default`.
    pub profile: Option<String>,
    /// The longest wait for a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The longest wait for one attempt, connection and credentials included.
    #[serde(with = "humantime_serde")]
    pub attempt_timeout: Duration,
    /// The longest wait for a page, all its attempts included.
    #[serde(with = "humantime_serde")]
    pub fetch_timeout: Duration,
    /// How often a transient failure is tried again.
    pub retries: u32,
    /// The longest pause before the first of these; it doubles from one to the next.
    #[serde(with = "humantime_serde")]
    pub retry_backoff: Duration,
    /// Whether to sign with made-up credentials, as the simulator takes them.
    #[serde(skip)]
    pub simulated_credentials: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: None,
            endpoint_url: None,
            profile: None,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(30),
            retries: 2,
            retry_backoff: Duration::from_millis(200),
            simulated_credentials: false,
        }
    }
}

/// Why a target's client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Neither the configuration nor the environment names a region.
    #[error("no AWS region: pass --region, set AWS_REGION, or name one in the configuration file under [upstream]")]
    NoRegion,
    /// The endpoint is no URL that can be asked.
    #[error("{0:?} is not an endpoint URL, such as https://ssm.eu-west-1.amazonaws.com")]
    EndpointUrl(String),
}

/// [`Upstream`] over the AWS SDK. Its calls share the SDK's connections and credentials.
pub struct Ssm {
    client: Client,
    config: Config,
}

impl Config {
    /// Makes the client; credentials come from the SDK's default chain, and are loaded by the first fetch.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(self) -> Result<Ssm, BuildError> {
        if let Some(url) = &self.endpoint_url {
            let is_usable = |url: Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
            if !url.parse().is_ok_and(is_usable) {
                return Err(BuildError::EndpointUrl(url.clone()));
            }
        }
        let shared = self.load().await;
        if shared.region().is_none() {
            return Err(BuildError::NoRegion);
        }
        Ok(Ssm { client: Client::new(&shared), config: self })
    }

    async fn load(&self) -> SdkConfig {
        // Attempts of the SDK's own would escape our pacing, and share a quota with the other targets.
        let mut loader =
            aws_config::defaults(BehaviorVersion::v2026_01_12()).retry_config(RetryConfig::disabled()).timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(self.connect_timeout)
                    .operation_attempt_timeout(self.attempt_timeout)
                    .build(),
            );
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(url) = &self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if self.simulated_credentials {
            loader = loader.credentials_provider(Credentials::new("SIMULATED", "simulated", None, None, "simulator"));
        }
        loader.load().await
    }
}

impl Upstream for Ssm {
    fn fetch<'a>(
        &'a self,
        filters: &'a Filters,
        token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<UpstreamPage, UpstreamError>> {
        async move {
            let outcome = time::timeout(self.config.fetch_timeout, self.attempts(filters, token)).await;
            let outcome = outcome.unwrap_or_else(|elapsed| Err(UpstreamError::Unavailable(None, Some(elapsed.into()))));
            if let Err(error) = &outcome
                && !error.is_about_the_request()
            {
                error.log("AWS gave no page");
            }
            outcome
        }
        .boxed()
    }
}

impl Ssm {
    /// Tries until an answer, a lasting failure, or the last retry.
    async fn attempts(&self, filters: &Filters, token: Option<&str>) -> Result<UpstreamPage, UpstreamError> {
        let mut backoff = self.config.retry_backoff;
        for _ in 0..self.config.retries {
            match self.attempt(filters, token).await {
                Err(error) if error.is_transient() => {
                    let advice = error.aws().and_then(|aws| aws.retry_after).unwrap_or_default();
                    if advice >= self.config.fetch_timeout {
                        return Err(error);
                    }
                    error.log("will ask AWS again");
                    time::sleep(advice.max(backoff.mul_f64(fastrand::f64()))).await;
                    backoff *= 2;
                }
                outcome => return outcome,
            }
        }
        self.attempt(filters, token).await
    }

    async fn attempt(&self, filters: &Filters, token: Option<&str>) -> Result<UpstreamPage, UpstreamError> {
        let answer = self.ask(filters, token).await.map_err(|error| UpstreamError::of_sdk(&error))?;
        Ok(UpstreamPage {
            records: convert::records(answer.instance_information_list.unwrap_or_default()),
            next_token: answer.next_token.filter(|token| !token.is_empty()),
        })
    }

    async fn ask(
        &self,
        filters: &Filters,
        token: Option<&str>,
    ) -> Result<DescribeInstanceInformationOutput, OperationError> {
        let request = self.client.describe_instance_information().max_results(PAGE_SIZE);
        let request = match filters {
            Filters::Current(list) if list.is_empty() => request,
            Filters::Current(list) => {
                request.set_filters(Some(list.iter().map(convert::filter).collect::<Result<_, _>>()?))
            }
            Filters::Legacy(list) => request.set_instance_information_filter_list(Some(
                list.iter().map(convert::legacy_filter).collect::<Result<_, _>>()?,
            )),
        };
        request.set_next_token(token.map(str::to_owned)).send().await
    }
}

/// Says where it asks, and nothing of credentials.
impl fmt::Debug for Ssm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssm").field("config", &self.config).finish_non_exhaustive()
    }
}
