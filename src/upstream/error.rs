use std::{
    error::Error,
    fmt, iter,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_sdk_ssm::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    primitives::{DateTime, DateTimeFormat},
};
use tracing::warn;

use super::http::{AnswerTooLarge, InvalidCertificate};
use crate::{clock, display::ErrorChain, model::TargetName};

/// Longer advice than this would leave a target dead by one header.
pub const MAX_ADVICE: Duration = Duration::from_hours(1);
/// The most bytes that are kept of AWS's words: a message may repeat a request, and errors are kept for a while.
const MAX_WORDS: usize = 1024;

/// AWS's codes for "too fast": the SDK's list (`aws_runtime::retries::classifiers::THROTTLING_ERRORS`).
const THROTTLING: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "RequestThrottled",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
];
/// AWS's codes for a request that is wrong in itself.
const INVALID_REQUEST: &[&str] = &[
    "InvalidFilterKey",
    "InvalidInstanceInformationFilterValue",
    "InvalidInstanceId",
    "InvalidNextToken",
    "ValidationException",
];
/// AWS's codes for credentials that are not allowed to ask.
const ACCESS_DENIED: &[&str] = &["AccessDeniedException", "AccessDenied", "NotAuthorized", "UnauthorizedOperation"];
/// AWS's codes for credentials that are expired, absent or wrong (its list of common errors).
const CREDENTIALS: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "IDPRejectedClaim",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];
/// AWS's codes for a failure of its own; the rest of these come with a 5xx status.
const UNAVAILABLE: &[&str] =
    &["IDPCommunicationError", "InternalServerError", "RequestTimeout", "RequestTimeoutException"];
/// AWS's codes for a signature that it does not take, as it does not where the clocks differ (`aws_runtime::service_clock_skew`).
const SIGNATURE: &[&str] =
    &["AuthFailure", "InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"];
/// A clock that differs less than this is not why AWS refuses a signature.
const LEAST_SKEW: Duration = Duration::from_mins(4);

/// Why a fetch gave no page. Each kind asks something else of the caller or of the operator.
///
/// `Display` never repeats AWS's words: they may name roles and accounts.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// AWS finds fault with the request itself; it would do so again.
    #[error("AWS refused the request")]
    InvalidRequest(AwsError),
    /// AWS was asked too often.
    #[error("AWS throttled the request")]
    Throttled(AwsError),
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

/// What lies below a failure, in words.
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

/// What AWS said in an error, as far as it said it.
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
    /// What AWS said, where it said anything.
    #[must_use]
    pub fn aws(&self) -> Option<&AwsError> {
        match self {
            Self::InvalidRequest(aws)
            | Self::Throttled(aws)
            | Self::AccessDenied(aws)
            | Self::ClockSkew(aws, _)
            | Self::Rejected(aws) => Some(aws),
            Self::Credentials(aws, _) | Self::Unavailable(aws, _) => aws.as_ref(),
            Self::Misconfigured(_) | Self::Protocol(_) | Self::Overloaded => None,
        }
    }

    /// The [kind](Self::kind) of those that AWS throttled.
    pub const THROTTLED: &'static str = "throttled";

    /// Its name in metrics and traces.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::Throttled(_) => Self::THROTTLED,
            Self::AccessDenied(_) => "access_denied",
            Self::Credentials(..) => "credentials",
            Self::ClockSkew(..) => "clock_skew",
            Self::Unavailable(..) => "unavailable",
            Self::Misconfigured(_) => "misconfigured",
            Self::Overloaded => "overloaded",
            Self::Rejected(_) => "rejected",
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether AWS finds fault with what the caller asked, rather than with the gateway or itself.
    pub(super) fn is_about_the_request(&self) -> bool {
        matches!(self, Self::InvalidRequest(_))
    }

    /// Whether the same request may succeed a moment later without anyone doing anything. An answer that
    /// was not sent by AWS will be the same again, unless its status says that whoever sent it is busy.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(Some(AwsError { code: None, status: Some(status), .. }), _) => {
                *status >= 500 || *status == 408
            }
            Self::Unavailable(..) | Self::ClockSkew(..) => true,
            _ => false,
        }
    }

    /// Writes to the log what callers are not told: AWS's own words and the cause.
    pub(super) fn log(&self, target: &TargetName, outcome: &'static str) {
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

    /// Classifies what the SDK gave in place of an answer.
    pub(super) fn of_sdk<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        // The signer's, in its own words.
        if let Some(signing) = sources(error).find_map(|source| source.downcast_ref::<Self>()) {
            return signing.clone();
        }
        match error {
            SdkError::ServiceError(context) if error.code().is_some() => {
                Self::of_answer(AwsError::of(error), context.raw())
            }
            // The body is whole, since the HTTP client reads no half ones.
            SdkError::ResponseError(context) if context.raw().status().is_success() => Self::Protocol(cause(error)),
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => Self::of_foreign_answer(AwsError::of(error)),
            SdkError::ConstructionFailure(_) => Self::Misconfigured(cause(error)),
            _ if has::<AnswerTooLarge>(error) => Self::Protocol(cause(error)),
            _ if has::<InvalidCertificate>(error) => Self::Misconfigured(cause(error)),
            _ => Self::Unavailable(None, Some(cause(error))),
        }
    }

    /// Classifies an error of STS's: whatever is wrong with that request is none of the caller's doing.
    pub(super) fn of_sts<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match Self::of_sdk(error) {
            Self::InvalidRequest(aws) | Self::Rejected(aws) => Self::AccessDenied(aws),
            Self::Unavailable(Some(aws), _) if aws.code.is_none() => {
                let words =
                    format!("STS's endpoint answered {} without an error of AWS's", aws.status.unwrap_or_default());
                Self::Unavailable(Some(aws), Some(words.into()))
            }
            Self::Protocol(cause) => Self::Unavailable(None, Some(cause)),
            other => other,
        }
    }

    /// Classifies an error that AWS put into its own words; unknown codes go by the HTTP status.
    fn of_answer(aws: AwsError, answer: &HttpResponse) -> Self {
        let (code, status) = (aws.code.as_deref().unwrap_or_default(), answer.status().as_u16());
        if let Some(skew) = skew(answer).filter(|_| SIGNATURE.contains(&code)) {
            Self::ClockSkew(aws, skew)
        } else if THROTTLING.contains(&code) {
            Self::Throttled(aws)
        } else if INVALID_REQUEST.contains(&code) {
            Self::InvalidRequest(aws)
        } else if ACCESS_DENIED.contains(&code) {
            Self::AccessDenied(aws)
        } else if CREDENTIALS.contains(&code) {
            Self::Credentials(Some(aws), None)
        } else if UNAVAILABLE.contains(&code) || status >= 500 {
            Self::Unavailable(Some(aws), None)
        } else if status == 429 {
            Self::Throttled(aws)
        } else {
            Self::Rejected(aws)
        }
    }

    /// Classifies an answer that was not sent by AWS, but by a proxy, a portal or another service.
    fn of_foreign_answer(aws: AwsError) -> Self {
        match aws.status.unwrap_or_default() {
            429 => Self::Throttled(aws),
            status => {
                let words = format!("the endpoint answered {status} without an error of AWS's: is endpoint_url right?");
                Self::Unavailable(Some(aws), Some(words.into()))
            }
        }
    }
}

impl AwsError {
    /// Whether AWS no longer takes, or never took, the token it was given.
    #[must_use]
    pub fn is_invalid_next_token(&self) -> bool {
        self.code.as_deref() == Some("InvalidNextToken")
    }

    fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Self {
        let owned = |text: &str| Some(cut(text)).filter(|text| !text.is_empty()).map(str::to_owned);
        let header = error.raw_response().and_then(|answer| answer.headers().get("x-amz-retry-after"));
        Self {
            status: error.raw_response().map(|answer| answer.status().as_u16()),
            code: error.code().and_then(owned),
            message: error.message().and_then(owned),
            request_id: error.request_id().and_then(owned),
            retry_after: header
                .and_then(|millis| millis.parse().ok())
                .map(Duration::from_millis)
                .map(|advice| advice.min(MAX_ADVICE)),
        }
    }
}

/// By how much the clock that an answer was written by differs from ours, if that is much.
fn skew(answer: &HttpResponse) -> Option<Duration> {
    let date = DateTime::from_str(answer.headers().get("date")?, DateTimeFormat::HttpDate).ok()?;
    let (theirs, ours) = (SystemTime::try_from(date).ok()?, clock::wall());
    let skew = theirs.duration_since(ours).unwrap_or_else(|earlier| earlier.duration());
    Some(Duration::from_secs(skew.as_secs())).filter(|skew| *skew >= LEAST_SKEW)
}

/// The SDK's error and its sources in words. The error itself is not kept: it holds AWS's answer, nodes' addresses and
/// all, and its `Debug` shows them.
fn cause(error: &(dyn Error + 'static)) -> Cause {
    sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ").into()
}

fn has<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(<dyn Error>::is::<E>)
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_WORDS)).unwrap_or_default()
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}
