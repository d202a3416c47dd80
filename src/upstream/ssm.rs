use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ssm::{
    Client,
    config::http::HttpResponse,
    error::SdkError,
    operation::{
        RequestId as _,
        describe_instance_information::{DescribeInstanceInformationError, DescribeInstanceInformationOutput},
    },
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::{self, Instant};

use super::{
    BuildError, Config, CredentialsCache, Pace, Priority, Upstream, UpstreamError, UpstreamPage,
    client::Settings,
    convert,
    credentials::{Credentials, Signer},
    environment::Environment,
    mend::Mend,
    pacer::{LineIsFull, Pacer},
    source::{Role, Source},
};
use crate::model::{Filters, Scope, TargetName};

/// How many records are asked for at a time: AWS's most.
const PAGE_SIZE: i32 = 50;

/// [`Upstream`] over the AWS SDK. Its calls share one client, with its connections.
pub struct Ssm {
    target: TargetName,
    client: Client,
    credentials: Arc<Credentials>,
    scope: Scope,
    region: String,
    pacer: Pacer,
    retries: AtomicU64,
    retrying: AtomicUsize,
    repaired: AtomicU64,
    config: Config,
}

impl Config {
    /// Builds the client of the target of this name. AWS is asked nothing yet, but for the region of this machine where nothing
    /// else names one; credentials are obtained by the first fetch.
    ///
    /// # Errors
    /// [`BuildError`], if the configuration or AWS's own variables and files cannot be used.
    pub async fn build(self, target: TargetName, cache: &CredentialsCache) -> Result<Ssm, BuildError> {
        self.check()?;
        let environment = Environment::load(self.profile.as_deref()).await?;
        let settings = Settings::new(&self, &environment).await?;
        let source = if self.simulated_credentials {
            Source::Simulated
        } else {
            Source::find(&environment, self.profile.as_deref())?
        };
        let mut credentials = cache.of(&source, &settings);
        if let Some(arn) = self.role_arn.clone() {
            let (session_name, external_id) = (self.session_name.clone(), self.external_id.clone());
            credentials = Arc::new(credentials.assuming(Role { arn, session_name, external_id }, &settings));
        }
        let (role, profile) = (self.role_arn.as_deref(), self.profile.as_deref());
        Ok(Ssm {
            target,
            client: settings.ssm(SharedCredentialsProvider::new(Signer(Arc::clone(&credentials)))),
            credentials,
            scope: Scope::of([Some(settings.region.as_str()), settings.ssm_endpoint.as_deref(), role, profile]),
            region: settings.region,
            pacer: Pacer::new(self.requests_per_second, self.longest_line),
            retries: AtomicU64::default(),
            retrying: AtomicUsize::default(),
            repaired: AtomicU64::default(),
            config: self,
        })
    }
}

impl Upstream for Ssm {
    fn region(&self) -> &str {
        &self.region
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn signed_by(&self) -> String {
        self.credentials.to_string()
    }

    fn pace(&self) -> Pace {
        let (retries, retrying) = (self.retries.load(Relaxed), self.retrying.load(Relaxed));
        Pace { retries, retrying, repaired: self.repaired.load(Relaxed), ..self.pacer.pace() }
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
            let late = || format!("no answer within fetch_timeout, {:?}", self.config.fetch_timeout);
            let outcome = outcome.unwrap_or_else(|_elapsed| Err(UpstreamError::Unavailable(None, Some(late().into()))));
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
    /// Tries until an answer, a lasting failure, or the last retry. Credentials are obtained before, with tries of their own:
    /// the time that they take is none of an attempt's.
    async fn attempts(&self, filters: &Filters, token: Option<&str>) -> Result<UpstreamPage, UpstreamError> {
        let (mut backoff, mut retrying) = (self.config.retry_backoff, None);
        for _ in 0..self.config.retries {
            self.credentials.get().await?;
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
        self.credentials.get().await?;
        self.attempt(filters, token).await
    }

    async fn attempt(&self, filters: &Filters, token: Option<&str>) -> Result<UpstreamPage, UpstreamError> {
        let (sent, mend) = (Instant::now(), Mend::default());
        let answer = self.ask(filters, token, mend.clone()).await.map_err(|error| UpstreamError::of_sdk(&error));
        match &answer {
            Err(UpstreamError::Throttled(aws)) => self.pacer.throttled(sent, aws.retry_after),
            Err(UpstreamError::Credentials(..)) => self.credentials.forget().await,
            _ => {}
        }
        let answer = answer?;
        let request_id = answer.request_id().map(str::to_owned);
        // The SDK takes an empty body for an empty object.
        let nodes = answer.instance_information_list;
        let nodes = nodes.ok_or_else(|| UpstreamError::Protocol("the answer has no list of nodes".into()))?;
        let (records, repaired) = convert::records(nodes, mend.has_mended(), &self.target);
        self.repaired.fetch_add(repaired, Relaxed);
        Ok(UpstreamPage { records, next_token: answer.next_token.filter(|token| !token.is_empty()), request_id })
    }

    async fn ask(
        &self,
        filters: &Filters,
        token: Option<&str>,
        mend: Mend,
    ) -> Result<DescribeInstanceInformationOutput, SdkError<DescribeInstanceInformationError, HttpResponse>> {
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
        request.set_next_token(token.map(str::to_owned)).customize().interceptor(mend).send().await
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

/// Says where it asks, and nothing of credentials.
impl fmt::Debug for Ssm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssm").field("config", &self.config).finish_non_exhaustive()
    }
}
