//! Credentials that are obtained once for all who sign with them, and renewed before they expire.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use aws_config::{
    ecs::EcsCredentialsProvider, imds::credentials::ImdsCredentialsProvider, profile::ProfileFileCredentialsProvider,
};
use aws_credential_types::{
    Credentials as AwsCredentials,
    provider::{self, ProvideCredentials, error::CredentialsError},
};
use futures_util::{
    FutureExt as _,
    future::{self, BoxFuture, Shared},
};
use tokio::{
    fs,
    time::{self, Instant},
};
use tracing::warn;

use super::{
    client::Settings,
    credential_source::{CredentialSource, Role, WebIdentity},
    http::Http,
    process::ProcessError,
    provide::{self, absent},
};
use crate::{
    clock,
    display::{ErrorChain, FileName},
    source::{Pacer, Priority, QueueFull, UpstreamError},
};

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

type BySource = HashMap<(CredentialSource, Settings), Weak<Credentials>>;

impl CredentialsCache {
    /// The credentials of a source, obtained with these settings.
    pub(super) fn for_source(&self, source: &CredentialSource, settings: &Settings) -> Arc<Credentials> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, credentials| credentials.strong_count() > 0);
        // Whose region asks does not matter: credentials are good in all of them.
        let key = (source.clone(), settings.of_credentials());
        if let Some(known) = cache.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let pacer = Arc::new(Pacer::new(STS_RATE, STS_QUEUE));
        let credentials = Credentials::new(Basis::Source(source.clone()), settings, settings.http(), pacer);
        cache.insert(key, Arc::downgrade(&credentials));
        credentials
    }
}

/// Credentials of one source or role. Whoever needs them first has them obtained for all who wait, by a task of its
/// own: a caller that leaves takes nothing from the others.
pub(super) struct Credentials {
    basis: Basis,
    settings: Settings,
    http: Http,
    /// One client for all requests, since the SDK keeps in it by how much the clock differs.
    sts: aws_sdk_sts::Client,
    /// How fast STS is asked with the credentials of one source, for all roles that are assumed with them.
    pacer: Arc<Pacer>,
    state: std::sync::Mutex<State>,
}

enum Basis {
    Source(CredentialSource),
    Role { base: Arc<Credentials>, role: Role },
}

type Outcome = Result<AwsCredentials, UpstreamError>;

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// The outcome that is being waited for.
    obtaining: Option<Shared<BoxFuture<'static, Outcome>>>,
}

struct Current {
    credentials: AwsCredentials,
    renew_at: Option<SystemTime>,
}

impl Credentials {
    fn new(basis: Basis, settings: &Settings, http: Http, pacer: Arc<Pacer>) -> Arc<Self> {
        let sts = settings.sts(&http);
        let state = std::sync::Mutex::default();
        Arc::new(Self { basis, settings: settings.clone(), http, sts, pacer, state })
    }

    /// The credentials of a role that is assumed with these.
    pub(super) fn assuming(self: &Arc<Self>, role: Role, settings: &Settings) -> Arc<Self> {
        let basis = Basis::Role { base: Arc::clone(self), role };
        Self::new(basis, settings, self.http.clone(), Arc::clone(&self.pacer))
    }

    /// The credentials as they are now, obtained if there are none; while they are renewed those that are still good
    /// are used.
    ///
    /// # Errors
    /// Why there are none, with [`UpstreamError::CredentialsUnavailable`] for what passes: it was tried again here, and
    /// is not worth another try at once.
    pub(super) fn get(self: &Arc<Self>) -> BoxFuture<'static, Outcome> {
        let now = clock::wall();
        let mut state = self.state();
        let current = state.current.as_ref().filter(|current| current.is_good(now));
        let good = current.map(|current| current.credentials.clone());
        if let (Some(credentials), Some(false)) = (&good, current.map(|current| current.is_due(now))) {
            return future::ready(Ok(credentials.clone())).boxed();
        }
        let obtaining = state.obtaining.get_or_insert_with(|| self.start()).clone();
        good.map_or_else(|| obtaining.boxed(), |credentials| future::ready(Ok(credentials)).boxed())
    }

    /// Forgets credentials that AWS does not take any more, unless others have taken their place.
    pub(super) fn forget(&self, used: &AwsCredentials) {
        let mut state = self.state();
        state.current.take_if(|current| current.credentials.access_key_id() == used.access_key_id());
    }

    fn start(self: &Arc<Self>) -> Shared<BoxFuture<'static, Outcome>> {
        let this = Arc::clone(self);
        #[expect(clippy::disallowed_methods, reason = "it ends by its time-outs, and outlives whoever asked first")]
        let task = tokio::spawn(async move {
            let outcome = this.obtain().await.map_err(|error| match error {
                UpstreamError::Unavailable(aws, cause) => UpstreamError::CredentialsUnavailable(aws, cause),
                UpstreamError::Throttled(aws) => UpstreamError::CredentialsThrottled(aws),
                lasting => lasting,
            });
            this.settle(&outcome);
            outcome
        });
        let interrupted =
            |_| Err(UpstreamError::CredentialsUnavailable(None, Some("obtaining credentials was interrupted".into())));
        task.map(move |joined| joined.unwrap_or_else(interrupted)).boxed().shared()
    }

    fn settle(&self, outcome: &Outcome) {
        let now = clock::wall();
        let mut state = self.state();
        state.obtaining = None;
        match outcome {
            Ok(credentials) => {
                let renew_at = credentials.expiry().map(|expires| renew_at(now, expires));
                state.current = Some(Current { credentials: credentials.clone(), renew_at });
            }
            Err(error) => {
                if let Some(current) = &mut state.current {
                    current.renew_at = Some(now + RENEWAL_RETRY);
                    warn!(of = %self, error = %ErrorChain(error), "credentials could not be renewed, and are used until they expire");
                }
            }
        }
    }

    /// Tries until there are credentials, a lasting failure, or the last retry. Those that a role is assumed with have
    /// tries of their own: their failure is final.
    async fn obtain(&self) -> Outcome {
        let mut retries = self.settings.retries;
        let mut throttled = THROTTLED_TRIES;
        let mut backoff = self.settings.retry_backoff;
        let mut has_renewed_base = false;
        loop {
            let outcome = match &self.basis {
                Basis::Source(source) => self.of_source(source).await,
                Basis::Role { base, role } => {
                    let with = base.get().await?;
                    let outcome = self.assume(role, with.clone()).await;
                    // Keys that were rotated: the source is asked once more before it is wrong.
                    if matches!(outcome, Err(UpstreamError::Credentials(..))) && !has_renewed_base {
                        has_renewed_base = true;
                        base.forget(&with);
                        continue;
                    }
                    outcome
                }
            };
            match outcome {
                Err(UpstreamError::Throttled(aws)) if throttled > 0 => {
                    throttled -= 1;
                    // STS's pace is slower by now, and a source that is not STS waits as long as it advises.
                    time::sleep(aws.retry_after.unwrap_or_default().min(self.settings.attempt_timeout)).await;
                }
                Err(error) if error.is_transient() && retries > 0 => {
                    retries -= 1;
                    warn!(of = %self, error = %ErrorChain(&error), "will ask for credentials again");
                    time::sleep(backoff.mul_f64(fastrand::f64())).await;
                    backoff *= 2;
                }
                outcome => return outcome,
            }
        }
    }

    async fn of_source(&self, source: &CredentialSource) -> Outcome {
        match source {
            CredentialSource::Process(process) => process.run(self.settings.attempt_timeout).await.map_err(|error| {
                let cause = Some(ErrorChain(&error).to_string().into());
                let is_late = matches!(error, ProcessError::Timeout(..));
                if is_late { UpstreamError::Unavailable(None, cause) } else { UpstreamError::Credentials(None, cause) }
            }),
            CredentialSource::WebIdentity(identity) => self.assume_with_web_identity(identity).await,
            CredentialSource::Environment => provide::of_environment(),
            CredentialSource::Keys(profile) => provide::of_profile(profile).await,
            CredentialSource::Simulated => Ok(AwsCredentials::new("SIMULATED", "simulated", None, None, "simulator")),
            CredentialSource::Unconfigured => {
                Err(absent("no credentials are configured: set a profile, AWS's variables, or a role of the machine"))
            }
            CredentialSource::Container => {
                self.settings.ask(source, |config| EcsCredentialsProvider::builder().configure(config).build()).await
            }
            CredentialSource::Instance => {
                self.settings.ask(source, |config| ImdsCredentialsProvider::builder().configure(config).build()).await
            }
            CredentialSource::Sdk(profile) => {
                let builder = ProfileFileCredentialsProvider::builder().profile_name(profile);
                self.settings.ask(source, |config| builder.configure(config).build()).await
            }
        }
    }

    async fn assume(&self, role: &Role, with: AwsCredentials) -> Outcome {
        let request = self.sts.assume_role().role_arn(&role.arn).role_session_name(role.session_name());
        let signed = aws_sdk_sts::Config::builder().credentials_provider(with);
        let request = request.set_external_id(role.external_id.clone()).customize().config_override(signed);
        self.session(async { Ok(request.send().await.map_err(|error| UpstreamError::of_sts(&error))?.credentials) })
            .await
    }

    async fn assume_with_web_identity(&self, identity: &WebIdentity) -> Outcome {
        let WebIdentity { token_file, role } = identity;
        let token = fs::read_to_string(token_file).await.map_err(|error| {
            absent(format!(
                "cannot read the web identity's token {}: {}",
                FileName(Path::new(token_file)),
                error.kind()
            ))
        })?;
        let request = self.sts.assume_role_with_web_identity().role_arn(&role.arn);
        let request = request.role_session_name(role.session_name()).web_identity_token(token.trim());
        self.session(async { Ok(request.send().await.map_err(|error| UpstreamError::of_sts(&error))?.credentials) })
            .await
    }

    /// Asks STS for a session when its pace allows it.
    async fn session(
        &self,
        asking: impl Future<Output = Result<Option<aws_sdk_sts::types::Credentials>, UpstreamError>>,
    ) -> Outcome {
        self.pacer.admit(Priority::Interactive).await.map_err(|QueueFull| UpstreamError::Overloaded)?;
        let sent = Instant::now();
        let answer = asking.await;
        if let Err(UpstreamError::Throttled(aws)) = &answer {
            self.pacer.throttled(sent, aws.retry_after);
        }
        let credentials = answer?.ok_or_else(|| absent("STS answered without credentials"))?;
        let expires = SystemTime::try_from(credentials.expiration).ok();
        let id = credentials.access_key_id;
        let secret = credentials.secret_access_key;
        let token = credentials.session_token;
        Ok(AwsCredentials::new(id, secret, Some(token), expires, "sts"))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when nine tenths of the time that credentials last are over.
fn renew_at(now: SystemTime, expires: SystemTime) -> SystemTime {
    now + expires.duration_since(now).unwrap_or_default().mul_f64(0.9)
}

impl Current {
    fn is_good(&self, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expires| now < expires)
    }

    fn is_due(&self, now: SystemTime) -> bool {
        self.renew_at.is_some_and(|at| at <= now)
    }
}

impl Role {
    fn session_name(&self) -> &str {
        self.session_name.as_deref().unwrap_or("ssm-gateway")
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.basis {
            Basis::Source(source) => source.fmt(f),
            Basis::Role { base, role } => write!(f, "role {} by {base}", role.arn),
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
    fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        provider::future::ProvideCredentials::new(async {
            self.0.get().await.map_err(CredentialsError::provider_error)
        })
    }
}

#[cfg(test)]
mod tests;
