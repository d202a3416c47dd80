use std::{
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use aws_sdk_ssm::{
    Client,
    config::{self, Credentials},
    operation::{RequestId as _, describe_instance_information::DescribeInstanceInformationOutput},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::Uri;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::OnceCell,
    time::{self, Instant},
};

use super::{
    Pace, Priority, Upstream, UpstreamError, UpstreamPage, convert,
    error::OperationError,
    pacer::{LineIsFull, Pacer},
};
use crate::model::{Filters, TargetName};

/// How many records are asked for at a time: AWS's most.
const PAGE_SIZE: i32 = 50;

/// What sessions of an assumed role are called where the configuration does not say.
const SESSION_NAME: &str = "ssm-gateway";

/// How a target's SSM is reached; the `[upstream]` table of the configuration file says it for all targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The AWS region; absent, what the SDK finds in `AWS_REGION`, the profile or the instance's metadata.
    pub region: Option<String>,
    /// Another endpoint than the region's own; absent, what the SDK finds in `AWS_ENDPOINT_URL_SSM` and the like.
    pub endpoint_url: Option<String>,
    /// Another endpoint of STS than the region's own, for roles to be assumed at.
    pub sts_endpoint_url: Option<String>,
    /// The profile in AWS's shared files; absent, `AWS_PROFILE` or `default`.
    pub profile: Option<String>,
    /// The role to assume, by its ARN; absent, the credentials that are found are used as they are.
    pub role_arn: Option<String>,
    /// The external ID that the role's trust policy demands.
    pub external_id: Option<String>,
    /// What the sessions of the role are called, in `CloudTrail` too.
    pub session_name: Option<String>,
    /// The longest wait for a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The longest wait for one attempt, connection and credentials included.
    #[serde(with = "humantime_serde")]
    pub attempt_timeout: Duration,
    /// The longest wait for a page, all its attempts included.
    #[serde(with = "humantime_serde")]
    pub fetch_timeout: Duration,
    /// How often AWS is asked at most, a second; throttling slows it down further.
    pub requests_per_second: f64,
    /// How many fetches may wait for their turn.
    pub longest_line: usize,
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
            sts_endpoint_url: None,
            profile: None,
            role_arn: None,
            external_id: None,
            session_name: None,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(30),
            requests_per_second: 10.0,
            longest_line: 100,
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
    #[error("no AWS region: pass --region, set AWS_REGION, or name one in the configuration file")]
    NoRegion,
    /// The endpoint is no URL that can be asked.
    #[error("{1:?} is not an endpoint URL, such as https://ssm.eu-west-1.amazonaws.com")]
    EndpointUrl(&'static str, String),
    /// The endpoint has a user or a query, which are not used.
    #[error("an endpoint URL has no user and no query")]
    Secret(&'static str),
    /// The rate is none.
    #[error("requests_per_second must be more than 0, not {0}")]
    Rate(f64),
    /// The role is none.
    #[error("{0:?} is not the ARN of a role, such as arn:aws:iam::123456789012:role/SsmReader")]
    RoleArn(String),
}

impl BuildError {
    /// The setting that is wrong.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::NoRegion => "region",
            Self::EndpointUrl(key, _) | Self::Secret(key) => key,
            Self::Rate(_) => "requests_per_second",
            Self::RoleArn(_) => "role_arn",
        }
    }
}

/// [`Upstream`] over the AWS SDK. Its calls share one client, with its connections and credentials, which the first makes.
pub struct Ssm {
    target: TargetName,
    client: OnceCell<Client>,
    pacer: Pacer,
    retries: AtomicU64,
    retrying: AtomicUsize,
    config: Config,
}

impl Config {
    /// Checks what is written, as far as that is possible without asking anyone.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn check(&self) -> Result<(), BuildError> {
        let is_usable = |url: Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        // What stands there could be a secret, and would be of no use.
        let has_secret = |url: &str| url.contains(['@', '?']);
        let urls = [("endpoint_url", &self.endpoint_url), ("sts_endpoint_url", &self.sts_endpoint_url)];
        for (key, url) in urls.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?))) {
            if has_secret(url) {
                return Err(BuildError::Secret(key));
            }
            if !url.parse().is_ok_and(is_usable) {
                return Err(BuildError::EndpointUrl(key, url.clone()));
            }
        }
        if let Some(arn) = self.role_arn.as_ref().filter(|arn| !is_role(arn)) {
            return Err(BuildError::RoleArn(arn.clone()));
        }
        if !self.requests_per_second.is_finite() || self.requests_per_second <= 0.0 {
            return Err(BuildError::Rate(self.requests_per_second));
        }
        Ok(())
    }

    /// Checks what is written, and finds the region, for the target of this name; credentials come from the SDK's default chain, and are loaded by the
    /// first fetch.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(mut self, target: TargetName) -> Result<Ssm, BuildError> {
        self.check()?;
        self.region = self.region.filter(|region| !region.is_empty());
        if self.region.is_none() {
            let found = self.load().await.region().map(ToString::to_string).filter(|region| !region.is_empty());
            self.region = Some(found.ok_or(BuildError::NoRegion)?);
        }
        let pacer = Pacer::new(self.requests_per_second, self.longest_line);
        Ok(Ssm {
            target,
            client: OnceCell::new(),
            pacer,
            retries: AtomicU64::default(),
            retrying: AtomicUsize::default(),
            config: self,
        })
    }

    async fn client(&self) -> Client {
        let shared = self.load().await;
        let mut config = config::Builder::from(&shared);
        if let Some(url) = &self.endpoint_url {
            config = config.endpoint_url(url);
        }
        if let Some(role) = &self.role_arn {
            let mut sts = shared.clone().into_builder();
            if let Some(url) = &self.sts_endpoint_url {
                sts = sts.endpoint_url(url);
            }
            let mut provider = AssumeRoleProvider::builder(role)
                .session_name(self.session_name.as_deref().unwrap_or(SESSION_NAME))
                .configure(&sts.build());
            if let Some(id) = &self.external_id {
                provider = provider.external_id(id);
            }
            config = config.credentials_provider(provider.build().await);
        }
        Client::from_conf(config.build())
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
    fn region(&self) -> &str {
        self.config.region.as_deref().unwrap_or_default()
    }

    fn pace(&self) -> Pace {
        let (retries, retrying) = (self.retries.load(Relaxed), self.retrying.load(Relaxed));
        Pace { retries, retrying, ..self.pacer.pace() }
    }

    fn turn(&self, priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>> {
        let turn = time::timeout(self.config.fetch_timeout, self.pacer.turn(priority));
        async { turn.await.unwrap_or(Err(LineIsFull)).map_err(|LineIsFull| UpstreamError::Overloaded) }.boxed()
    }

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
                error.log(&self.target, "AWS gave no page");
            }
            outcome
        }
        .boxed()
    }
}

impl Ssm {
    /// Tries until an answer, a lasting failure, or the last retry.
    async fn attempts(&self, filters: &Filters, token: Option<&str>) -> Result<UpstreamPage, UpstreamError> {
        let (mut backoff, mut retrying) = (self.config.retry_backoff, None);
        for _ in 0..self.config.retries {
            match self.attempt(filters, token).await {
                Err(error) if error.is_transient() => {
                    let advice = error.aws().and_then(|aws| aws.retry_after).unwrap_or_default();
                    if advice >= self.config.fetch_timeout {
                        return Err(error);
                    }
                    error.log(&self.target, "will ask AWS again");
                    retrying.get_or_insert_with(|| Retrying::new(&self.retrying));
                    time::sleep(advice.max(backoff.mul_f64(fastrand::f64()))).await;
                    if self.turn(Priority::Interactive).await.is_err() {
                        return Err(error);
                    }
                    self.retries.fetch_add(1, Relaxed);
                    backoff *= 2;
                }
                outcome => return outcome,
            }
        }
        self.attempt(filters, token).await
    }

    async fn attempt(&self, filters: &Filters, token: Option<&str>) -> Result<UpstreamPage, UpstreamError> {
        let sent = Instant::now();
        let answer = self.ask(filters, token).await.map_err(|error| UpstreamError::of_sdk(&error));
        if let Err(UpstreamError::Throttled(aws)) = &answer {
            self.pacer.throttled(sent, aws.retry_after);
        }
        let answer = answer?;
        let request_id = answer.request_id().map(str::to_owned);
        let nodes = answer.instance_information_list.unwrap_or_default();
        Ok(UpstreamPage {
            records: convert::records(nodes),
            next_token: answer.next_token.filter(|token| !token.is_empty()),
            request_id,
        })
    }

    async fn ask(
        &self,
        filters: &Filters,
        token: Option<&str>,
    ) -> Result<DescribeInstanceInformationOutput, OperationError> {
        let client = self.client.get_or_init(|| self.config.client()).await;
        let request = client.describe_instance_information().max_results(PAGE_SIZE);
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

/// A fetch that goes on though AWS failed it, until this is dropped.
struct Retrying<'a>(&'a AtomicUsize);

impl<'a> Retrying<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// `arn:PARTITION:iam::ACCOUNT:role/NAME`.
fn is_role(arn: &str) -> bool {
    matches!(
        arn.splitn(6, ':').collect::<Vec<_>>()[..],
        ["arn", _, "iam", "", account, role] if !account.is_empty() && role.len() > "role/".len() && role.starts_with("role/")
    )
}

/// Says where it asks, and nothing of credentials.
impl fmt::Debug for Ssm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssm").field("config", &self.config).finish_non_exhaustive()
    }
}
