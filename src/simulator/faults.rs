use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value},
};

/// The ways in which the simulator misbehaves. The default is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The delay of every answer.
    #[serde(with = "humantime_serde")]
    pub latency: Duration,
    /// Failures; the first that applies to a call is its answer.
    pub failures: Vec<Failure>,
    /// Every page of a walk whose number is a multiple of this is empty, but has a token; 0 for none.
    pub empty_every: u32,
    /// The number of nodes in a page, whatever `MaxResults` is, as in emulators that ignore it; 0 to respect
    /// `MaxResults`.
    pub page_size: usize,
    /// The number of characters to add to the name of each node.
    pub padding: usize,
    /// Returns the token of the request as the next token.
    pub repeat_token: bool,
    /// Rejects every token as expired.
    pub expire_tokens: bool,
    /// Adds members that AWS's model does not have.
    pub unknown_members: bool,
    /// Throttles calls above this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The names of the account's roles that `AssumeRole` denies.
    pub denied_roles: Vec<String>,
}

/// The rate of calls that are not throttled, for each account and region.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The average rate, in calls per second.
    pub per_second: f64,
    /// The most calls at once.
    pub burst: f64,
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// A way in which calls fail.
///
/// # Examples
/// ```
/// use ssm_gateway::simulator::{Failure, FailureKind};
///
/// let failure: Failure = "throttling:0.1".parse()?;
/// assert_eq!(failure, Failure { probability: 0.1, ..Failure::always(FailureKind::Throttling) });
/// # Ok::<(), ssm_gateway::simulator::ParseFailureError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// What the caller receives.
    pub kind: FailureKind,
    /// How many calls fail; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// The share of calls that fail, from 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// The retry delay to advise, in `x-amz-retry-after`.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

/// What the caller of a failing call receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// AWS's `ThrottlingException`, "Rate exceeded".
    Throttling,
    /// AWS's `InternalServerError`, HTTP 500.
    InternalError,
    /// A proxy's page, HTTP 500.
    Html,
    /// A proxy's page, HTTP 200.
    HtmlOk,
    /// HTTP 200 and truncated JSON.
    MalformedJson,
    /// The connection is closed without an answer.
    Reset,
    /// The connection is closed in the middle of the answer.
    Cut,
    /// No answer, ever.
    Hang,
    /// AWS's `AccessDeniedException`, whose message names a role and an account.
    AccessDenied,
    /// AWS's `ExpiredTokenException`: the credentials have expired.
    ExpiredCredentials,
    /// Any other error of AWS.
    Error {
        /// The HTTP status.
        status: u16,
        /// AWS's code.
        code: String,
        /// AWS's message, if any.
        #[serde(default)]
        message: Option<String>,
    },
}

/// The outcome of one call.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    /// All faults but the failures.
    pub(super) faults: Faults,
    pub(super) failure: Option<Failure>,
}

/// Why a text is not a [`Failure`].
#[derive(Debug, thiserror::Error)]
pub enum ParseFailureError {
    /// The kind is unknown.
    #[error("{0}")]
    Kind(#[from] value::Error),
    /// The probability is not a number.
    #[error("the probability must be a number")]
    Number(#[source] std::num::ParseFloatError),
    /// The probability is out of range.
    #[error("the probability must be from 0 to 1")]
    Range,
}

impl Failure {
    /// Returns a failure of every call.
    #[must_use]
    pub fn always(kind: FailureKind) -> Self {
        Self { kind, calls: None, probability: 1.0, retry_after: None }
    }
}

/// Reads `KIND` or `KIND:PROBABILITY`, such as `throttling:0.1`.
impl FromStr for Failure {
    type Err = ParseFailureError;

    fn from_str(text: &str) -> Result<Self, ParseFailureError> {
        let (kind, probability) = text.split_once(':').unwrap_or((text, "1"));
        let kind = FailureKind::deserialize(IntoDeserializer::<value::Error>::into_deserializer(kind))?;
        let probability = probability.parse().map_err(ParseFailureError::Number)?;
        if !(0.0..=1.0).contains(&probability) {
            return Err(ParseFailureError::Range);
        }
        Ok(Self { probability, ..Self::always(kind) })
    }
}

impl Faults {
    /// Decides the outcome of the next call.
    pub(super) fn draw(&mut self, random: &mut fastrand::Rng) -> Effect {
        let mut applies = |failure: &Failure| failure.calls != Some(0) && random.f64() < failure.probability;
        let failure = self.failures.iter_mut().find(|failure| applies(failure));
        let failure = failure.map(|failure| {
            failure.calls = failure.calls.map(|calls| calls - 1);
            failure.clone()
        });
        Effect { faults: Self { failures: Vec::new(), ..self.clone() }, failure }
    }
}

impl Bucket {
    /// Returns a full bucket.
    pub(super) fn new(rate: Rate) -> Self {
        Self { tokens: rate.burst, filled: Instant::now() }
    }

    /// Takes a token. Returns `false` if the bucket is empty.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate.per_second).min(rate.burst);
        self.filled = now;
        let is_admitted = self.tokens >= 1.0;
        if is_admitted {
            self.tokens -= 1.0;
        }
        is_admitted
    }
}

fn always() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_from_the_command_line() {
        assert_eq!("reset".parse::<Failure>().unwrap(), Failure::always(FailureKind::Reset));
        let failure: Failure = "throttling:0.25".parse().unwrap();
        assert_eq!((failure.kind, failure.probability), (FailureKind::Throttling, 0.25));
        for wrong in ["", "gone", "error", "reset:2", "reset:-1", "reset:NaN", "reset:x"] {
            assert!(wrong.parse::<Failure>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_its_rate() {
        let rate = Rate { per_second: 2.0, burst: 3.0 };
        let mut bucket = Bucket::new(rate);
        let start = bucket.filled;
        let mut taken = |millis| bucket.take(rate, start + Duration::from_millis(millis));
        assert_eq!([0, 0, 0, 0].map(&mut taken), [true, true, true, false]);
        assert_eq!([400, 500, 900, 1000].map(&mut taken), [false, true, false, true]);
        assert_eq!([60_000, 60_000, 60_000, 60_000].map(&mut taken), [true, true, true, false], "no more than a burst");
    }

    #[test]
    fn a_failure_applies_as_often_as_it_says() {
        let limited = Failure { calls: Some(2), ..Failure::always(FailureKind::Reset) };
        let mut faults = Faults { failures: vec![limited, Failure::always(FailureKind::Html)], ..Faults::default() };
        let mut random = fastrand::Rng::with_seed(1);
        let kinds: Vec<_> = (0..4).map(|_| faults.draw(&mut random).failure.unwrap().kind).collect();
        assert_eq!(kinds, [FailureKind::Reset, FailureKind::Reset, FailureKind::Html, FailureKind::Html]);
    }
}
