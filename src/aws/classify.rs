//! From what the SDK gives in place of an answer to the port's errors, by AWS's codes and the HTTP status.

use std::{
    error::Error,
    iter,
    time::{Duration, SystemTime},
};

use aws_sdk_ssm::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    primitives::{DateTime, DateTimeFormat},
};

use super::http::{AnswerTooLarge, InvalidCertificate};
use crate::{
    clock,
    source::{AwsError, Cause, MAX_ADVICE, UpstreamError, cut},
};

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
/// AWS's code for a token that it does not take.
const INVALID_TOKEN: &str = "InvalidNextToken";
/// AWS's codes for a request that is wrong in itself.
const INVALID_REQUEST: &[&str] =
    &["InvalidFilterKey", "InvalidInstanceInformationFilterValue", "InvalidInstanceId", "ValidationException"];
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
/// AWS's codes for a signature that it does not take, as it does not where the clocks differ
/// (`aws_runtime::service_clock_skew`).
const SIGNATURE: &[&str] =
    &["AuthFailure", "InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"];
/// A clock that differs less than this is not why AWS refuses a signature.
const LEAST_SKEW: Duration = Duration::from_mins(4);

impl UpstreamError {
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
            Self::InvalidRequest(aws) | Self::InvalidToken(aws) | Self::Rejected(aws) => Self::AccessDenied(aws),
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
        let code = aws.code.as_deref().unwrap_or_default();
        let status = answer.status().as_u16();
        if let Some(skew) = skew(answer).filter(|_| SIGNATURE.contains(&code)) {
            Self::ClockSkew(aws, skew)
        } else if THROTTLING.contains(&code) {
            Self::Throttled(aws)
        } else if code == INVALID_TOKEN {
            Self::InvalidToken(aws)
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

/// Returns by how much AWS's clock, as an answer has it, differs from ours, if that is much.
fn skew(answer: &HttpResponse) -> Option<Duration> {
    let date = DateTime::from_str(answer.headers().get("date")?, DateTimeFormat::HttpDate).ok()?;
    let theirs = SystemTime::try_from(date).ok()?;
    let ours = clock::wall();
    let skew = theirs.duration_since(ours).unwrap_or_else(|earlier| earlier.duration());
    Some(Duration::from_secs(skew.as_secs())).filter(|skew| *skew >= LEAST_SKEW)
}

/// Returns the SDK's error and its sources in words. The error itself is not kept: it holds AWS's answer, nodes'
/// addresses and all, and its `Debug` shows them.
fn cause(error: &(dyn Error + 'static)) -> Cause {
    sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ").into()
}

fn has<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(<dyn Error>::is::<E>)
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}
