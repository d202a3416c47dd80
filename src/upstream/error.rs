use std::{error::Error, fmt, iter, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ssm::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::{RequestId, describe_instance_information::DescribeInstanceInformationError},
};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use tracing::warn;

use crate::model::{Causes, TargetName};

pub(super) type OperationError = SdkError<DescribeInstanceInformationError, HttpResponse>;
type Source = Box<dyn Error + Send + Sync>;

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
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];
/// AWS's codes for a failure of its own; the rest of these come with a 5xx status.
const UNAVAILABLE: &[&str] = &["InternalServerError", "RequestTimeout", "RequestTimeoutException"];

/// Why a fetch gave no page. Each kind asks something else of the caller or of the operator.
///
/// `Display` never repeats AWS's words: they may name roles and accounts.
#[derive(Debug, thiserror::Error)]
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
    Credentials(Option<AwsError>, #[source] Option<Source>),
    /// AWS could not be reached, did not answer in time, or failed; the next attempt may succeed.
    #[error("AWS could not be reached or failed")]
    Unavailable(Option<AwsError>, #[source] Option<Source>),
    /// So many fetches wait for the target that another would wait too long.
    #[error("too many wait for the target already")]
    Overloaded,
    /// AWS refused for a reason that this program does not know.
    #[error("AWS refused the request for a reason unknown to the gateway")]
    Rejected(AwsError),
    /// AWS answered with success, but not with the operation's JSON.
    #[error("AWS's answer was not one of DescribeInstanceInformation")]
    Protocol(#[source] Source),
}

/// What AWS said in an error, as far as it said it.
#[derive(Clone, Default)]
pub struct AwsError {
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
        let Self { code, message: _, request_id, retry_after } = self;
        f.debug_struct("AwsError")
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
            Self::InvalidRequest(aws) | Self::Throttled(aws) | Self::AccessDenied(aws) | Self::Rejected(aws) => {
                Some(aws)
            }
            Self::Credentials(aws, _) | Self::Unavailable(aws, _) => aws.as_ref(),
            Self::Protocol(_) | Self::Overloaded => None,
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
            Self::Unavailable(..) => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Rejected(_) => "rejected",
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether AWS finds fault with what the caller asked, rather than with the gateway or itself.
    pub(super) fn is_about_the_request(&self) -> bool {
        matches!(self, Self::InvalidRequest(_))
    }

    /// Whether the same request may succeed a moment later without anyone doing anything.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(..))
    }

    /// Writes to the log what callers are not told: AWS's own words and the cause.
    pub(super) fn log(&self, target: &TargetName, outcome: &'static str) {
        let AwsError { code, message, request_id, .. } = self.aws().cloned().unwrap_or_default();
        warn!(
            target_name = %target,
            error = %Causes(self),
            aws_error_code = code,
            aws_message = message,
            aws_request_id = request_id,
            "{outcome}"
        );
    }

    /// Classifies what the SDK gave in place of an answer.
    pub(super) fn of_sdk(error: &OperationError) -> Self {
        match error {
            SdkError::ServiceError(context) => Self::of_answer(AwsError::of(error), context.raw().status().as_u16()),
            // The body is there only if it was read to its end: a cut answer is no answer.
            SdkError::ResponseError(context)
                if context.raw().status().is_success() && context.raw().body().bytes().is_some() =>
            {
                Self::Protocol(cause(error))
            }
            SdkError::ResponseError(_) => Self::Unavailable(Some(AwsError::of(error)), Some(cause(error))),
            _ => match assume_role(error) {
                Some(sts @ SdkError::ServiceError(context)) => {
                    Self::of_assume_role(AwsError::of(sts), context.raw().status().as_u16())
                }
                Some(sts) if !is_about_credentials(sts) => Self::Unavailable(None, Some(cause(error))),
                _ if is_about_credentials(error) => Self::Credentials(None, Some(cause(error))),
                _ => Self::Unavailable(None, Some(cause(error))),
            },
        }
    }

    /// Classifies an error in STS's words: whatever is wrong with that request is none of the caller's doing.
    fn of_assume_role(aws: AwsError, status: u16) -> Self {
        match Self::of_answer(aws, status) {
            Self::InvalidRequest(aws) | Self::Rejected(aws) => Self::AccessDenied(aws),
            Self::Throttled(aws) => Self::Unavailable(Some(aws), None),
            other => other,
        }
    }

    /// Classifies an error that AWS put into its own words; unknown codes go by the HTTP status.
    fn of_answer(aws: AwsError, status: u16) -> Self {
        let code = aws.code.as_deref().unwrap_or_default();
        if THROTTLING.contains(&code) {
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

/// The SDK reports absent credentials as a failed dispatch; the reason lies at the bottom of its sources.
fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|source| source.downcast_ref::<CredentialsError>().is_some())
}

/// The failure to assume a role that lies below another.
fn assume_role(error: &OperationError) -> Option<&SdkError<AssumeRoleError, HttpResponse>> {
    sources(error).find_map(|source| source.downcast_ref())
}

/// The SDK's error and its sources in words. The error itself is not kept: it holds AWS's answer, nodes' addresses and
/// all, and its `Debug` shows them.
fn cause(error: &OperationError) -> Source {
    cut(&sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")).into()
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_WORDS)).unwrap_or_default()
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}
