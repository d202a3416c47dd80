use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use super::Origin;
use crate::{display::ErrorChain, model::TargetName};

/// The longest time that AWS can ask to be left alone: longer advice would leave a target dead by one header.
pub const MAX_ADVICE: Duration = Duration::from_hours(1);
/// The most bytes that are kept of AWS's words: a message may repeat a request, and errors are kept for a while.
const MAX_WORDS: usize = 1024;

/// A fetch that gave no page, and which answer said so.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a fetch gave no page")]
pub struct FetchError {
    /// Why there is no page.
    #[source]
    pub error: UpstreamError,
    /// Which answer it is of.
    pub origin: Origin,
    /// When AWS was asked; when it failed, if AWS was not.
    pub sent: Instant,
}

impl From<UpstreamError> for FetchError {
    fn from(error: UpstreamError) -> Self {
        let origin = Origin::new(error.aws().and_then(|aws| aws.request_id.as_deref()));
        Self { error, origin, sent: Instant::now() }
    }
}

/// A fetch that gave no page. Each kind asks something else of the caller or of the operator.
///
/// `Display` never repeats AWS's words: they may name roles and accounts.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// AWS finds fault with the request itself; it would do so again.
    #[error("AWS refused the request")]
    InvalidRequest(AwsError),
    /// AWS no longer takes, or never took, the token that it was given.
    #[error("AWS does not take the token")]
    InvalidToken(AwsError),
    /// AWS was asked too often.
    #[error("AWS throttled the request")]
    Throttled(AwsError),
    /// AWS was asked for the target's credentials too often; of the target itself nothing was asked.
    #[error("AWS throttled the request for the target's credentials")]
    CredentialsThrottled(AwsError),
    /// The target's credentials are valid but not allowed to ask.
    #[error("AWS denied access to the target's credentials")]
    AccessDenied(AwsError),
    /// The target's credentials are expired, absent or wrong; AWS's answer is there if AWS gave one.
    #[error("the target's credentials are expired, absent or invalid")]
    Credentials(Option<AwsError>, #[source] Option<Cause>),
    /// AWS refused the signature, and the clocks differ by this much. The next attempt is signed by AWS's clock.
    #[error("the clock of this machine differs from AWS's by {1:?}")]
    ClockSkew(AwsError, Duration),
    /// AWS could not be reached, did not answer in time, or failed; the next attempt may succeed.
    #[error("AWS could not be reached or failed")]
    Unavailable(Option<AwsError>, #[source] Option<Cause>),
    /// The target's credentials could not be obtained for now; that was tried again before it was reported.
    #[error("the target's credentials could not be obtained")]
    CredentialsUnavailable(Option<AwsError>, #[source] Option<Cause>),
    /// The target cannot be asked as it is configured; it is of no use to try again.
    #[error("the target cannot be asked as it is configured")]
    Misconfigured(#[source] Cause),
    /// So many fetches wait for the target that another would wait too long.
    #[error("too many wait for the target already")]
    Overloaded,
    /// AWS refused for a reason that this program does not know.
    #[error("AWS refused the request for a reason unknown to the gateway")]
    Rejected(AwsError),
    /// AWS answered with success, but not with the operation's JSON.
    #[error("AWS's answer was not one of DescribeInstanceInformation")]
    Protocol(#[source] Cause),
}

/// The cause of a failure, in words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Cause(Arc<str>);

impl From<&str> for Cause {
    fn from(words: &str) -> Self {
        Self(cut(words).into())
    }
}

impl From<String> for Cause {
    fn from(words: String) -> Self {
        Self::from(&*words)
    }
}

/// An error of AWS's, as far as AWS described it.
#[derive(Clone, Default)]
pub struct AwsError {
    /// The HTTP status.
    pub status: Option<u16>,
    /// AWS's error code, such as `ThrottlingException`.
    pub code: Option<String>,
    /// AWS's words, possibly with names of roles and accounts in them.
    pub message: Option<String>,
    /// The ID under which AWS's support finds the request.
    pub request_id: Option<String>,
    /// How long AWS says to wait, from `x-amz-retry-after`.
    pub retry_after: Option<Duration>,
}

/// Leaves out AWS's words, which may repeat what the caller sent.
impl fmt::Debug for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, message: _, request_id, retry_after } = self;
        f.debug_struct("AwsError")
            .field("status", status)
            .field("code", code)
            .field("request_id", request_id)
            .field("retry_after", retry_after)
            .finish_non_exhaustive()
    }
}

impl UpstreamError {
    /// Returns what AWS said, where it said anything.
    #[must_use]
    pub fn aws(&self) -> Option<&AwsError> {
        match self {
            Self::InvalidRequest(aws)
            | Self::InvalidToken(aws)
            | Self::Throttled(aws)
            | Self::CredentialsThrottled(aws)
            | Self::AccessDenied(aws)
            | Self::ClockSkew(aws, _)
            | Self::Rejected(aws) => Some(aws),
            Self::Credentials(aws, _) | Self::Unavailable(aws, _) | Self::CredentialsUnavailable(aws, _) => {
                aws.as_ref()
            }
            Self::Misconfigured(_) | Self::Protocol(_) | Self::Overloaded => None,
        }
    }

    /// The [kind](Self::kind) of those that AWS throttled.
    pub const THROTTLED: &'static str = "throttled";

    /// Returns the name of the kind in metrics and traces.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::InvalidToken(_) => "invalid_request",
            Self::Throttled(_) | Self::CredentialsThrottled(_) => Self::THROTTLED,
            Self::AccessDenied(_) => "access_denied",
            Self::Credentials(..) => "credentials",
            Self::ClockSkew(..) => "clock_skew",
            Self::Unavailable(..) | Self::CredentialsUnavailable(..) => "unavailable",
            Self::Misconfigured(_) => "misconfigured",
            Self::Overloaded => "overloaded",
            Self::Rejected(_) => "rejected",
            Self::Protocol(_) => "protocol",
        }
    }

    /// Returns whether AWS finds fault with what the caller asked, rather than with the gateway or itself.
    pub(crate) fn is_about_the_request(&self) -> bool {
        matches!(self, Self::InvalidRequest(_) | Self::InvalidToken(_))
    }

    /// Returns whether the same request may succeed a moment later without anyone doing anything. An answer that
    /// was not sent by AWS will be the same again, unless its status says that whoever sent it is busy.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(Some(AwsError { code: None, status: Some(status), .. }), _) => {
                *status >= 500 || *status == 408
            }
            Self::Unavailable(..) | Self::ClockSkew(..) => true,
            _ => false,
        }
    }

    /// Logs what callers do not learn: AWS's own words and the cause.
    pub(crate) fn log(&self, target: &TargetName, outcome: &'static str) {
        let AwsError { status, code, message, request_id, .. } = self.aws().cloned().unwrap_or_default();
        warn!(
            target_name = %target,
            error = %ErrorChain(self),
            http_status = status,
            aws_error_code = code,
            aws_message = message,
            aws_request_id = request_id,
            "{outcome}"
        );
    }
}

/// Cuts AWS's words to what is kept of them.
pub(crate) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_WORDS)).unwrap_or_default()
}
