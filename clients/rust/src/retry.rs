//! The retries of the service config, which tonic does not implement. Nor does tonic balance over replicas or check their health
//! by the service config, as other libraries do.

use std::{error::Error as _, time::Duration};

use serde::{Deserialize, Deserializer};
use tokio::time::{self, Instant};
use tonic::{Code, Request, Status};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceConfig {
    method_config: Vec<MethodConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodConfig {
    retry_policy: RetryPolicy,
}

/// Which errors are retried, how often, and after how long.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetryPolicy {
    max_attempts: u32,
    #[serde(deserialize_with = "duration")]
    initial_backoff: Duration,
    #[serde(deserialize_with = "duration")]
    max_backoff: Duration,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<String>,
}

/// A duration of ProtoJSON, such as `0.1s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.trim_end_matches('s').parse().map(Duration::from_secs_f64).map_err(serde::de::Error::custom)
}

impl RetryPolicy {
    /// Returns the policy of the published service config, which is the same for all methods.
    pub(crate) fn published() -> serde_json::Result<Self> {
        let config = include_str!(concat!(env!("OUT_DIR"), "/service_config.json"));
        let config: ServiceConfig = serde_json::from_str(config)?;
        Ok(config.method_config.into_iter().next().map(|method| method.retry_policy).unwrap_or_default())
    }

    /// Makes a call and retries it while the policy covers its error, until `end`. Waits as long as the gateway advises.
    pub(crate) async fn call<Message: Clone, Answer, Attempt: Future<Output = Result<Answer, Status>>>(
        &self,
        end: Instant,
        message: &Message,
        attempt: impl Fn(Request<Message>) -> Attempt,
    ) -> Result<Answer, Status> {
        let (mut attempts, mut backoff) = (1, self.initial_backoff);
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(end.saturating_duration_since(Instant::now()));
            let status = match in_time(end, attempt(request)).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let pause = match status.metadata().get("grpc-retry-pushback-ms") {
                None => Some(backoff.mul_f64(fastrand::f64())),
                // An advice that is negative or not a number forbids a retry.
                Some(advice) => advice.to_str().ok().and_then(|text| text.parse().ok()).map(Duration::from_millis),
            };
            match pause {
                Some(pause) if attempts < self.max_attempts && self.covers(&status) && Instant::now() + pause < end => {
                    time::sleep(pause).await;
                }
                _ => return Err(status),
            }
            attempts += 1;
            backoff = self.max_backoff.min(backoff.mul_f64(self.backoff_multiplier));
        }
    }

    /// Compares by code: `RESOURCE_EXHAUSTED` is tonic's `ResourceExhausted`.
    fn covers(&self, status: &Status) -> bool {
        let code = if is_unavailable(status) { Code::Unavailable } else { status.code() };
        let code = format!("{code:?}");
        self.retryable_status_codes.iter().any(|name| name.replace('_', "").eq_ignore_ascii_case(&code))
    }
}

/// Returns whether the gateway is unavailable or the connection broke. For the latter tonic has other codes, and a source, which no
/// answer of a gateway has.
pub(crate) fn is_unavailable(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

/// Awaits a call until `end`, and then fails with `DEADLINE_EXCEEDED`. tonic itself reports CANCELLED, and nothing once an answer has
/// begun.
pub(crate) async fn in_time<T>(end: Instant, what: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let outcome = time::timeout_at(end, what).await;
    match outcome {
        Ok(Err(status)) if Instant::now() < end => Err(status),
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(Status::deadline_exceeded("no answer in time")),
    }
}
