//! How a target is asked: the adapter in its decorators.

use std::sync::Arc;

use crate::{
    aws::{self, BuildError, CredentialsCache},
    model::TargetName,
    source::{Identity, Paced, Retried, RetryPolicy, Source, Traced},
};

/// Builds the source of a target. AWS is asked nothing.
///
/// # Errors
/// [`BuildError`], if the configuration or AWS's own variables and files cannot be used.
pub(super) async fn build(
    target: &TargetName,
    config: aws::Config,
    credentials: &CredentialsCache,
) -> Result<(Identity, Arc<dyn Source>), BuildError> {
    let aws::Config { requests_per_second, longest_line, retries, retry_backoff, fetch_timeout, .. } = config;
    let ssm = Box::pin(config.build(target.clone(), credentials)).await?;
    let identity = ssm.identity();
    // Inside of the retries, so that each attempt is admitted, and slows the pace down where AWS throttles it.
    let paced = Paced::new(ssm, requests_per_second, longest_line, fetch_timeout);
    let retried = Retried::new(paced, target.clone(), RetryPolicy { retries, backoff: retry_backoff, fetch_timeout });
    // Outermost: one span a fetch, whatever it takes.
    let traced = Traced::new(retried, target.clone(), identity.region.clone());
    Ok((identity, Arc::new(traced)))
}
