//! Asks the sources of credentials: AWS's variables and files, and the SDK's providers, of whose errors kinds and HTTP
//! statuses alone are read.

use std::env;

use aws_config::provider_config::ProviderConfig;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use tokio::time;

use super::{client::Settings, credential_source::CredentialSource, environment::Environment};
use crate::source::UpstreamError;

impl Settings {
    /// Asks a provider of the SDK's, built anew each time: what it would keep is kept in [`super::credentials`].
    pub(super) async fn ask<P: ProvideCredentials>(
        &self,
        source: &CredentialSource,
        build: impl FnOnce(&ProviderConfig) -> P,
    ) -> Result<Credentials, UpstreamError> {
        let http = self.http();
        let most = self.attempt_timeout;
        let provider = build(&self.providers(&http));
        match time::timeout(most, provider.provide_credentials()).await {
            Ok(outcome) => outcome.map_err(|error| classify(source, &error, http.status())),
            Err(_elapsed) => {
                Err(UpstreamError::Unavailable(None, Some(format!("{source}: no credentials within {most:?}").into())))
            }
        }
    }
}

/// Reads the keys of a profile from its file.
pub(super) async fn of_profile(name: &str) -> Result<Credentials, UpstreamError> {
    let environment = Environment::load(Some(name)).await.map_err(|error| absent(error.to_string()))?;
    let get = |key| Some(environment.profile(name)?.get(key)?.to_owned()).filter(|value: &String| !value.is_empty());
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => Ok(Credentials::new(id, secret, get("aws_session_token"), None, "profile")),
        _ => Err(absent(format!("profile {name:?} has no keys any more"))),
    }
}

/// Reads the keys from the process's variables.
pub(super) fn of_environment() -> Result<Credentials, UpstreamError> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            Ok(Credentials::new(id, secret, variable("AWS_SESSION_TOKEN"), None, "environment"))
        }
        _ => Err(absent("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")),
    }
}

/// Classifies a failure of the SDK's provider, whose own words are left out: they may repeat what it read.
fn classify(source: &CredentialSource, error: &CredentialsError, status: Option<u16>) -> UpstreamError {
    let unavailable = |why: String| UpstreamError::Unavailable(None, Some(format!("{source}: {why}").into()));
    match (error, status) {
        // Without an answer the SDK says so too, for the instance's metadata.
        (CredentialsError::CredentialsNotLoaded(_), Some(_)) => absent(format!("{source}: there are no credentials")),
        (CredentialsError::CredentialsNotLoaded(_), None) if !matches!(source, CredentialSource::Instance) => {
            absent(format!("{source}: there are no credentials"))
        }
        (CredentialsError::InvalidConfiguration(_), _) => absent(format!("{source}: its configuration is wrong")),
        (_, None) => unavailable("no answer".to_owned()),
        (_, Some(status)) if status >= 500 || matches!(status, 408 | 429) => unavailable(format!("answered {status}")),
        (_, Some(status)) => absent(format!("{source}: answered {status}, without credentials")),
    }
}

pub(super) fn absent(why: impl Into<String>) -> UpstreamError {
    UpstreamError::Credentials(None, Some(why.into().into()))
}
