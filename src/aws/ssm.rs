use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
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
use tokio::time::Instant;

use super::{
    BuildError, Config, CredentialsCache,
    client::Settings,
    convert,
    credential_source::{CredentialSource, Role},
    credentials::{Credentials, Signer},
    environment::Environment,
    repair::Repair,
};
use crate::{
    clock,
    model::{Filters, Scope, TargetName},
    source::{FetchError, Identity, Origin, Pace, Request, Sent, Source, UpstreamError, UpstreamPage},
};

/// How many records are asked for at a time: AWS's most.
const PAGE_SIZE: i32 = 50;

/// [`Source`] over the AWS SDK, which makes one attempt a page. All attempts share one client, with its connections.
pub struct Ssm {
    target: TargetName,
    client: Client,
    credentials: Arc<Credentials>,
    scope: Scope,
    region: String,
    repaired: AtomicU64,
    config: Config,
}

impl Config {
    /// Builds the client of the target of this name. AWS is asked nothing yet, but for the region of this machine where
    /// nothing else names one; credentials are obtained by the first fetch.
    ///
    /// # Errors
    /// [`BuildError`], if the configuration or AWS's own variables and files cannot be used.
    pub async fn build(self, target: TargetName, cache: &CredentialsCache) -> Result<Ssm, BuildError> {
        self.check_requests()?;
        let environment = Environment::load(self.profile.as_deref()).await?;
        let settings = Settings::new(&self, &environment).await?;
        let (source, mut roles) = if self.simulated_credentials {
            (CredentialSource::Simulated, Vec::new())
        } else {
            CredentialSource::find(&environment, self.profile.as_deref())?
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
            repaired: AtomicU64::default(),
            config: self,
        })
    }
}

impl Source for Ssm {
    fn page<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        async move {
            // The time that credentials take is none of the attempt's.
            let credentials = self.credentials.get().await?;
            let sent = Instant::now();
            self.attempt(request, &credentials).await.map_err(|error| FetchError { sent, ..error.into() })
        }
        .boxed()
    }

    fn pace(&self) -> Pace {
        Pace { repaired: self.repaired.load(Relaxed), ..Pace::default() }
    }
}

impl Ssm {
    /// Returns where it asks, and as whom.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { region: self.region.clone(), scope: self.scope, signed_by: self.credentials.to_string() }
    }

    async fn attempt(
        &self,
        Request { filters, token, .. }: Request<'_>,
        credentials: &AwsCredentials,
    ) -> Result<UpstreamPage, UpstreamError> {
        let sent = Sent::now(clock::wall);
        let repair = Repair::default();
        let answer = self.ask(filters, token, repair.clone()).await.map_err(|error| UpstreamError::of_sdk(&error));
        if let Err(UpstreamError::Credentials(..)) = &answer {
            self.credentials.forget(credentials);
        }
        let answer = answer?;
        let origin = Origin::new(answer.request_id());
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
        Ok(UpstreamPage { records, next_token, sent, origin })
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

/// Says where it asks, and nothing of credentials.
impl fmt::Debug for Ssm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssm").field("config", &self.config).finish_non_exhaustive()
    }
}
