//! Credentials that are obtained once for all who sign with them, and renewed before they expire.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fmt, iter,
    sync::{Arc, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use aws_config::{
    ecs::EcsCredentialsProvider, imds::credentials::ImdsCredentialsProvider, profile::ProfileFileCredentialsProvider,
};
use aws_credential_types::{
    Credentials as AwsCredentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_ssm::{config::http::HttpResponse, error::SdkError};
use aws_sdk_sts::operation::{
    assume_role::AssumeRoleError, assume_role_with_web_identity::AssumeRoleWithWebIdentityError,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    fs,
    sync::Mutex,
    time::{self, Instant},
};
use tracing::warn;

use super::{
    Priority, UpstreamError,
    client::Settings,
    http::Http,
    pacer::Pacer,
    source::{Role, Source, WebIdentity},
};
use crate::model::Causes;

/// How often STS is asked at most, a second, with the credentials of one source; throttling slows it down.
const STS_RATE: f64 = 10.0;
/// How many roles may wait to be assumed with the credentials of one source.
const STS_QUEUE: usize = 10_000;
/// How often a role is asked for again after STS throttled, at its slower pace each time.
const THROTTLED_TRIES: u32 = 5;
/// When credentials are renewed that are still good, though renewing them failed.
const RENEWAL_RETRY: Duration = Duration::from_mins(1);

/// The credentials of each source, which all targets of a process share. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CredentialsCache(Arc<std::sync::Mutex<BySource>>);

type BySource = HashMap<(Source, Settings), Weak<Credentials>>;

impl CredentialsCache {
    /// The credentials of a source, got as these settings say.
    pub(super) fn of(&self, source: &Source, settings: &Settings) -> Arc<Credentials> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, credentials| credentials.strong_count() > 0);
        // Whose region asks does not matter: credentials are good in all of them.
        let key = (source.clone(), settings.of_credentials());
        if let Some(known) = cache.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let sts = Arc::new(Sts { http: settings.http(), pacer: Pacer::new(STS_RATE, STS_QUEUE) });
        let credentials = Arc::new(Credentials::new(Origin::Source(source.clone()), settings, sts));
        cache.insert(key, Arc::downgrade(&credentials));
        credentials
    }
}

/// Credentials of one source or role. Whoever needs them first obtains them for all who wait.
pub(super) struct Credentials {
    origin: Origin,
    settings: Settings,
    sts: Arc<Sts>,
    state: Mutex<State>,
}

enum Origin {
    Source(Source),
    Role { base: Arc<Credentials>, role: Role },
}

/// How STS is asked with the credentials of one source, for all roles that are assumed with them.
struct Sts {
    http: Http,
    pacer: Pacer,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// The last failure, and when it was known: it is that of all who waited for it.
    failed: Option<(Instant, UpstreamError)>,
}

struct Current {
    credentials: AwsCredentials,
    renew_at: Option<SystemTime>,
}

impl Credentials {
    fn new(origin: Origin, settings: &Settings, sts: Arc<Sts>) -> Self {
        Self { origin, settings: settings.clone(), sts, state: Mutex::default() }
    }

    /// The credentials of a role that is assumed with these.
    pub(super) fn assuming(self: &Arc<Self>, role: Role, settings: &Settings) -> Self {
        Self::new(Origin::Role { base: Arc::clone(self), role }, settings, Arc::clone(&self.sts))
    }

    /// The credentials as they are now, obtained or renewed if need be.
    ///
    /// # Errors
    /// Why there are none. What was tried again is not worth another try at once.
    pub(super) fn get(&self) -> BoxFuture<'_, Result<AwsCredentials, UpstreamError>> {
        async move {
            let arrived = Instant::now();
            let mut state = self.state.lock().await;
            let now = SystemTime::now();
            if let Some(current) = state.current.as_ref().filter(|current| current.renew_at.is_none_or(|at| now < at)) {
                return Ok(current.credentials.clone());
            }
            if let Some((_, error)) = state.failed.as_ref().filter(|(known, _)| arrived <= *known) {
                return Err(error.clone());
            }
            match self.obtain().await {
                Ok(credentials) => {
                    let renew_at = credentials.expiry().map(|expires| renew_at(now, expires));
                    state.current = Some(Current { credentials: credentials.clone(), renew_at });
                    Ok(credentials)
                }
                Err(error) => {
                    if let Some(credentials) = state.current.as_mut().and_then(|current| current.outlive(now)) {
                        warn!(of = %self, error = %Causes(&error), "credentials could not be renewed, and are used until they expire");
                        return Ok(credentials);
                    }
                    state.failed = Some((Instant::now(), error.clone()));
                    Err(error)
                }
            }
        }
        .boxed()
    }

    /// Forgets credentials that AWS does not take any more.
    pub(super) async fn forget(&self) {
        self.state.lock().await.current = None;
    }

    /// Tries until there are credentials, a lasting failure, or the last retry.
    async fn obtain(&self) -> Result<AwsCredentials, UpstreamError> {
        let (mut retries, mut throttled, mut backoff) =
            (self.settings.retries, THROTTLED_TRIES, self.settings.retry_backoff);
        loop {
            let sent = Instant::now();
            match self.attempt().await {
                Err(UpstreamError::Throttled(aws)) if throttled > 0 => {
                    throttled -= 1;
                    self.sts.pacer.throttled(sent, aws.retry_after);
                }
                Err(error) if error.is_transient() && retries > 0 => {
                    retries -= 1;
                    warn!(of = %self, error = %Causes(&error), "will ask for credentials again");
                    time::sleep(backoff.mul_f64(fastrand::f64())).await;
                    backoff *= 2;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self) -> Result<AwsCredentials, UpstreamError> {
        let source = match &self.origin {
            Origin::Source(source) => source,
            Origin::Role { base, role } => {
                let base = base.get().await?;
                return self.assume(role, base).await;
            }
        };
        match source {
            Source::Process(process) => {
                let printed = process.run(self.settings.attempt_timeout).await;
                let mut credentials = printed.map_err(|error| absent(Causes(&error).to_string()))?;
                for role in &process.roles {
                    credentials = self.assume(role, credentials).await?;
                }
                Ok(credentials)
            }
            Source::WebIdentity(identity) => self.assume_with_web_identity(identity).await,
            source => self.within(self.settings.provide(source)).await,
        }
    }

    async fn assume(&self, role: &Role, with: AwsCredentials) -> Result<AwsCredentials, UpstreamError> {
        self.sts.pacer.turn(Priority::Interactive).await.map_err(|_full| UpstreamError::Overloaded)?;
        let request = self.settings.sts(&self.sts.http, Some(with)).assume_role().role_arn(&role.arn);
        let request = request.role_session_name(role.session_name()).set_external_id(role.external_id.clone());
        self.within(async {
            let answer = request.send().await.map_err(|error| UpstreamError::of_sts(&error))?;
            session(answer.credentials)
        })
        .await
    }

    async fn assume_with_web_identity(&self, identity: &WebIdentity) -> Result<AwsCredentials, UpstreamError> {
        let WebIdentity { token_file, role } = identity;
        let token = fs::read_to_string(token_file).await;
        let token =
            token.map_err(|error| absent(format!("cannot read the web identity token {token_file}: {error}")))?;
        self.sts.pacer.turn(Priority::Interactive).await.map_err(|_full| UpstreamError::Overloaded)?;
        let request = self.settings.sts(&self.sts.http, None).assume_role_with_web_identity().role_arn(&role.arn);
        let request = request.role_session_name(role.session_name()).web_identity_token(token.trim());
        self.within(async {
            let answer = request.send().await.map_err(|error| UpstreamError::of_sts(&error))?;
            session(answer.credentials)
        })
        .await
    }

    async fn within(
        &self,
        obtaining: impl Future<Output = Result<AwsCredentials, UpstreamError>>,
    ) -> Result<AwsCredentials, UpstreamError> {
        let most = self.settings.attempt_timeout;
        let late = || UpstreamError::Unavailable(None, Some(format!("credentials took longer than {most:?}").into()));
        time::timeout(most, obtaining).await.unwrap_or_else(|_elapsed| Err(late()))
    }
}

impl Settings {
    /// Asks the SDK's provider of a source, anew each time: files change, and what it would keep is kept here.
    async fn provide(&self, source: &Source) -> Result<AwsCredentials, UpstreamError> {
        let http = self.http();
        let config = self.providers(&http);
        let provided = match source {
            Source::Simulated => Ok(AwsCredentials::new("SIMULATED", "simulated", None, None, "simulator")),
            Source::Environment => return of_environment(),
            Source::Profile(name) => {
                let provider = ProfileFileCredentialsProvider::builder().profile_name(name).configure(&config).build();
                provider.provide_credentials().await
            }
            Source::Container => {
                EcsCredentialsProvider::builder().configure(&config).build().provide_credentials().await
            }
            Source::Instance => {
                ImdsCredentialsProvider::builder().configure(&config).build().provide_credentials().await
            }
            Source::Nowhere | Source::Process(_) | Source::WebIdentity(_) => {
                return Err(absent(
                    "no credentials are configured: set a profile, AWS's variables, or a role of the machine",
                ));
            }
        };
        provided.map_err(|error| classify(source, &error, http.status()))
    }
}

fn of_environment() -> Result<AwsCredentials, UpstreamError> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            Ok(AwsCredentials::new(id, secret, variable("AWS_SESSION_TOKEN"), None, "environment"))
        }
        _ => Err(absent("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")),
    }
}

/// Classifies a failure of the SDK's provider, whose own words are left out: they may repeat what it read.
fn classify(source: &Source, error: &CredentialsError, status: Option<u16>) -> UpstreamError {
    if let Some(sts) = find::<SdkError<AssumeRoleError, HttpResponse>>(error) {
        return UpstreamError::of_sts(sts);
    }
    if let Some(sts) = find::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>(error) {
        return UpstreamError::of_sts(sts);
    }
    let unavailable = |why: String| UpstreamError::Unavailable(None, Some(format!("{source}: {why}").into()));
    match (error, status) {
        (CredentialsError::CredentialsNotLoaded(_), _) => absent(format!("{source}: there are no credentials")),
        (CredentialsError::InvalidConfiguration(_), _) => absent(format!("{source}: its configuration is wrong")),
        (_, None) => unavailable("no answer".to_owned()),
        (_, Some(status)) if status >= 500 || matches!(status, 408 | 429) => unavailable(format!("answered {status}")),
        (_, Some(status)) => absent(format!("{source}: answered {status}, which holds no credentials")),
    }
}

fn absent(why: impl Into<String>) -> UpstreamError {
    UpstreamError::Credentials(None, Some(why.into().into()))
}

fn session(credentials: Option<aws_sdk_sts::types::Credentials>) -> Result<AwsCredentials, UpstreamError> {
    let credentials = credentials.ok_or_else(|| absent("STS answered without credentials"))?;
    let expires = SystemTime::try_from(credentials.expiration).ok();
    let (id, secret, token) = (credentials.access_key_id, credentials.secret_access_key, credentials.session_token);
    Ok(AwsCredentials::new(id, secret, Some(token), expires, "AssumeRole"))
}

/// When nine tenths of the time that credentials last are over.
fn renew_at(now: SystemTime, expires: SystemTime) -> SystemTime {
    now + expires.duration_since(now).unwrap_or_default().mul_f64(0.9)
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

impl Current {
    /// The credentials, if they are good for a while though they could not be renewed; they are used without another try for
    /// half of that.
    fn outlive(&mut self, now: SystemTime) -> Option<AwsCredentials> {
        let left = self.credentials.expiry()?.duration_since(now).ok()?;
        self.renew_at = Some(now + RENEWAL_RETRY.min(left / 2));
        Some(self.credentials.clone())
    }
}

impl Role {
    fn session_name(&self) -> &str {
        self.session_name.as_deref().unwrap_or("ssm-gateway")
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Source(source) => source.fmt(f),
            Origin::Role { base, role } => write!(f, "role {} by {base}", role.arn),
        }
    }
}

/// Says whose they are, and nothing of them.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({self})")
    }
}

/// Signs with the credentials as they are when a request is sent.
#[derive(Debug)]
pub(super) struct Signer(pub(super) Arc<Credentials>);

impl ProvideCredentials for Signer {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.0.get().await.map_err(CredentialsError::provider_error) })
    }
}
