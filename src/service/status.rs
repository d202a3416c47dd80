//! From each error of a read to the failure of the call, exhaustively.

use std::time::Duration;

use tonic::Code;

use crate::{
    grpc::{Failure, Reason},
    model::{Filters, Query},
    proto::Unreachable,
    read::{InvalidCursor, ListingError, OpenError, ReadError},
    source::{AwsError, UpstreamError},
};

/// The advice when to retry after the gateway itself ran out of something.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest name in a message: a caller may have sent a mebibyte.
const MAX_NAME: usize = 128;
/// The longest `reason` that `google.rpc.ErrorInfo` allows.
const MAX_REASON: usize = 63;

/// Returns the failure of a call for which no reader could be opened; `field` holds its cursor.
pub(super) fn open_error(error: OpenError, query: &Query, field: &str) -> Failure {
    match error {
        OpenError::UnknownTarget => unknown_target(query.target().as_str()),
        OpenError::InvalidCursor(error) => invalid_cursor(error, field),
    }
}

/// Returns the failure of a call for a target, or a glob, that is none of the gateway's.
pub(super) fn unknown_target(name: &str) -> Failure {
    let name = name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or_default();
    Failure::new(Reason::UnknownTarget, format!("the gateway has no target {name:?}")).of_unknown_target(name)
}

/// Returns the failure of one target, as a stream over several reports it in place of the target's nodes.
pub(super) fn unreachable(failure: &Failure) -> Unreachable {
    Unreachable {
        code: failure.code().into(),
        reason: failure.reason().to_owned(),
        message: failure.message().to_owned(),
        // A delay that protobuf's `Duration` cannot hold is left out.
        retry_after: failure.delay().and_then(|delay| delay.try_into().ok()),
    }
}

/// Returns the failure of a call whose cursor, in `field`, was rejected.
pub(super) fn invalid_cursor(error: InvalidCursor, field: &str) -> Failure {
    let (cause, message) = match error {
        InvalidCursor::Malformed => ("malformed", "the token is not one that the gateway gave"),
        InvalidCursor::OtherQuery => ("other_query", "the token was given for another target or other filters"),
        InvalidCursor::Expired => ("expired", "the token is too old: ask again from the start"),
    };
    Failure::of_aws(Code::InvalidArgument, "INVALID_NEXT_TOKEN", message).with("cause", Some(cause)).at_field(field)
}

/// Returns the failure of a call whose query could not be read, with the rest of the hold-off as advice.
pub(super) fn read_error(ReadError { error, retry_after, .. }: &ReadError, query: &Query) -> Failure {
    let target = query.target().as_str();
    let failure = match &**error {
        ListingError::Expired(source) => {
            let message = "AWS let this listing expire before it was read to its end: ask again from the start";
            with_aws(Failure::new(Reason::ListingExpired, message), source.aws())
        }
        ListingError::RepeatedToken => protocol("AWS repeated a page, so the listing would never end"),
        ListingError::PageCap(pages) => {
            protocol(format!("the listing is longer than {pages} pages of AWS, the gateway's page_cap"))
        }
        ListingError::Upstream(error) => with_aws(upstream(error, query), error.aws()),
        ListingError::BreakerOpen(_) => {
            let message = format!("AWS failed for target {target} again and again: it is asked again after a while");
            Failure::new(Reason::TargetUnavailable, message)
        }
        ListingError::Evicted => Failure::new(
            Reason::OutOfMemory,
            "the gateway ran out of memory for this listing: resume from your last token",
        ),
        ListingError::Stalled => {
            Failure::new(Reason::Stalled, "nothing was taken for too long: resume from your last token")
        }
        ListingError::Interrupted => Failure::new(Reason::Internal, "the gateway failed while it asked AWS"),
    };
    let is_overload = matches!(**error, ListingError::Evicted | ListingError::Stalled);
    // Nobody comes back to what an operator must mend first.
    let is_lasting = matches!(**error, ListingError::Upstream(UpstreamError::Misconfigured(_)));
    let retry_after = retry_after.filter(|_| !is_lasting).map(up_to_millis).or(is_overload.then_some(RETRY_DELAY));
    failure.with("target", Some(target)).retry_after(retry_after)
}

/// Rounds what remains of a wait up to milliseconds: a caller that comes early is rejected once more.
fn up_to_millis(delay: Duration) -> Duration {
    Duration::from_millis(u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

fn upstream(error: &UpstreamError, query: &Query) -> Failure {
    let target = query.target();
    match error {
        UpstreamError::InvalidRequest(aws) | UpstreamError::InvalidToken(aws) => {
            let field = match query.filters() {
                Filters::Current(_) => "filters",
                Filters::Legacy(_) => "instance_information_filter_list",
            };
            in_aws_words(Code::InvalidArgument, aws, "AWS refused the request").at_field(field)
        }
        UpstreamError::Throttled(aws) | UpstreamError::CredentialsThrottled(aws) => {
            in_aws_words(Code::ResourceExhausted, aws, "AWS throttled the request")
        }
        UpstreamError::AccessDenied(_) => {
            let message = format!("AWS denies the gateway access to target {target}: its operator must grant it");
            Failure::new(Reason::AwsAccessDenied, message)
        }
        UpstreamError::Credentials(..) | UpstreamError::ClockSkew(..) => {
            let message = format!("the gateway's credentials for target {target} are expired, absent or invalid");
            Failure::new(Reason::AwsCredentials, message)
        }
        UpstreamError::Unavailable(Some(aws), _) | UpstreamError::CredentialsUnavailable(Some(aws), _)
            if aws.code.is_some() =>
        {
            in_aws_words(Code::Unavailable, aws, "AWS failed to answer")
        }
        UpstreamError::Unavailable(aws, _) | UpstreamError::CredentialsUnavailable(aws, _) => {
            let message = match aws.as_ref().and_then(|aws| aws.status) {
                Some(status) => {
                    format!(
                        "the endpoint of target {target} answered {status} without an error of AWS's: its operator must look at endpoint_url and proxies"
                    )
                }
                None => format!("AWS could not be reached for target {target}, or gave no answer of its own"),
            };
            Failure::new(Reason::TargetUnavailable, message)
        }
        UpstreamError::Misconfigured(_) => {
            let message = format!("target {target} cannot be asked as it is configured: the gateway's log says why");
            Failure::new(Reason::TargetMisconfigured, message)
        }
        UpstreamError::Overloaded => {
            Failure::new(Reason::QueueFull, "the gateway has more to ask of this target than AWS takes")
        }
        UpstreamError::Rejected(aws) => in_aws_words(Code::FailedPrecondition, aws, "AWS refused the request"),
        UpstreamError::Protocol(_) => protocol("AWS's answer was not one of DescribeInstanceInformation"),
    }
}

fn protocol(message: impl Into<String>) -> Failure {
    Failure::new(Reason::UpstreamProtocol, message)
}

/// Returns a failure with AWS's code and message, or with `otherwise` if AWS gave no message.
fn in_aws_words(code: Code, aws: &AwsError, otherwise: &str) -> Failure {
    let aws_code = aws.code.as_deref().unwrap_or("Rejected");
    let message = match aws.message.as_deref() {
        None => format!("{otherwise}: {aws_code}"),
        Some(message) => message.to_owned(),
    };
    Failure::of_aws(code, reason(aws_code), message)
}

fn with_aws(failure: Failure, aws: Option<&AwsError>) -> Failure {
    let Some(aws) = aws else { return failure };
    failure.with("aws_error_code", aws.code.as_deref()).with("aws_request_id", aws.request_id.as_deref())
}

/// Converts AWS's code to an `ErrorInfo` reason: `ThrottlingException` is `THROTTLING`, `InvalidFilterKey`
/// `INVALID_FILTER_KEY`.
fn reason(aws_code: &str) -> String {
    let name = aws_code.strip_suffix("Exception").filter(|name| !name.is_empty()).unwrap_or(aws_code);
    let mut reason = String::new();
    let mut after_lower = false;
    for letter in name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).take(MAX_REASON)
    {
        if after_lower && letter.is_ascii_uppercase() {
            reason.push('_');
        }
        after_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        reason.push(letter.to_ascii_uppercase());
    }
    reason.truncate(MAX_REASON);
    reason
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reason_is_aws_code_in_upper_snake_without_exception() {
        for (code, expected) in [
            ("InvalidFilterKey", "INVALID_FILTER_KEY"),
            ("InvalidInstanceInformationFilterValue", "INVALID_INSTANCE_INFORMATION_FILTER_VALUE"),
            ("ThrottlingException", "THROTTLING"),
            ("ValidationException", "VALIDATION"),
            ("EC2ThrottledException", "EC2_THROTTLED"),
            ("InternalServerError", "INTERNAL_SERVER_ERROR"),
            ("Exception", "EXCEPTION"),
        ] {
            assert_eq!(reason(code), expected);
        }
    }

    proptest! {
        #[test]
        fn any_code_makes_a_reason_that_error_info_allows(code in ".{1,200}") {
            let reason = reason(&code);
            prop_assert!(!reason.is_empty() && reason.len() <= MAX_REASON, "{}", reason);
            prop_assert!(reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'));
        }
    }
}
