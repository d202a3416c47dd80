use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use aws_credential_types::{Credentials as AwsCredentials, provider::SharedCredentialsProvider};
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
    pacer::{LineIsFull, Pacer},
    repair::Repair,
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
        self.check_requests()?;
        let environment = Environment::load(self.profile.as_deref()).await?;
        let settings = Settings::new(&self, &environment).await?;
        let (source, mut roles) = if self.simulated_credentials {
            (Source::Simulated, Vec::new())
        } else {
            Source::find(&environment, self.profile.as_deref())?
        };
        roles.extend(self.role_arn.clone().map(|arn| Role {
            arn,
            session_name: self.session_name.clone(),
            external_id: self.external_id.clone(),
        }));
        let base = cache.for_source(&source, &settings);
        let credentials = roles.iter().fold(base, |base, role| base.assuming(role.clone(), &settings));
        let identity = source.identity();
        let place = [Some(settings.region.as_str()), settings.ssm_endpoint.as_deref(), Some(&identity)];
        let scope = Scope::of(place.into_iter().chain(roles.iter().map(|role| Some(role.arn.as_str()))));
        Ok(Ssm {
            target,
            client: settings.ssm(SharedCredentialsProvider::new(Signer(Arc::clone(&credentials)))),
            credentials,
            scope,
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
            let credentials = self.credentials.get().await?;
            match self.attempt(filters, token, &credentials).await {
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
        let credentials = self.credentials.get().await?;
        self.attempt(filters, token, &credentials).await
    }

    async fn attempt(
        &self,
        filters: &Filters,
        token: Option<&str>,
        credentials: &AwsCredentials,
    ) -> Result<UpstreamPage, UpstreamError> {
        let (sent, repair) = (Instant::now(), Repair::default());
        let answer = self.ask(filters, token, repair.clone()).await.map_err(|error| UpstreamError::of_sdk(&error));
        match &answer {
            Err(UpstreamError::Throttled(aws)) => self.pacer.throttled(sent, aws.retry_after),
            Err(UpstreamError::Credentials(..)) => self.credentials.forget(credentials),
            _ => {}
        }
        let answer = answer?;
        let request_id = answer.request_id().map(str::to_owned);
        // The SDK takes an empty body for an empty object.
        let nodes = answer.instance_information_list;
        let nodes = nodes.ok_or_else(|| UpstreamError::Protocol("the answer has no list of nodes".into()))?;
        let (records, repaired) = convert::records(nodes, repair.has_repaired(), &self.target);
        self.repaired.fetch_add(repaired, Relaxed);
        let next_token = answer.next_token.filter(|token| !token.is_empty());
        if repair.has_repaired() && next_token.as_ref().is_some_and(|token| token.contains(char::REPLACEMENT_CHARACTER))
        {
            return Err(UpstreamError::Protocol("the token to the next page cannot be read".into()));
        }
        Ok(UpstreamPage { records, next_token, request_id })
    }

    async fn ask(
        &self,
        filters: &Filters,
        token: Option<&str>,
        repair: Repair,
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
        request.set_next_token(token.map(str::to_owned)).customize().interceptor(repair).send().await
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
