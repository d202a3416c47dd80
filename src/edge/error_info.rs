use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Gives an `ErrorInfo` to an error that has none: those that tonic raises before a handler runs, for an unknown method
/// or a message too large. The code's own name is the reason. For `tower`'s `map_response`.
#[must_use]
pub fn with_error_info<B>(mut answer: Response<B>) -> Response<B> {
    if let Some(status) = Status::from_header_map(answer.headers())
        && status.code() != Code::Ok
        && status.details().is_empty()
    {
        let message = if status.message().is_empty() { status.code().description() } else { status.message() };
        let explained = match status.code() {
            // By tonic of a message that is too large, compressed or not: it will be so the next time, too.
            Code::OutOfRange | Code::ResourceExhausted => {
                refusal(Code::ResourceExhausted, "REQUEST_TOO_LARGE", message, None)
            }
            code => refusal(code, name(code), message, None),
        };
        // A status that cannot be written leaves the one that was.
        let _written = explained.add_header(answer.headers_mut());
    }
    answer
}

/// A status with an `ErrorInfo` of the gateway's and, where coming back helps, when to.
pub(super) fn refusal(code: Code, reason: &str, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    refusal_with(code, ErrorDetails::with_error_info(reason, "ssm-gateway", HashMap::new()), message, retry_after)
}

/// The same, with details of its own.
pub(super) fn refusal_with(
    code: Code,
    mut details: ErrorDetails,
    message: impl Into<String>,
    retry_after: Option<Duration>,
) -> Status {
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    let mut status = Status::with_error_details(code, message, details);
    if code == Code::ResourceExhausted {
        // Clients obey this one to the millisecond: without the jitter they would all come back at once. A negative one
        // tells them not to come back.
        let millis = retry_after.map_or(-1, |delay| {
            i64::try_from(delay.mul_f64(1.0 + fastrand::f64() / 2.0).as_millis()).unwrap_or(i64::MAX)
        });
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(millis));
    }
    status
}

/// The end of a body that ends with this status.
pub(super) fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
}

/// `FailedPrecondition` as `FAILED_PRECONDITION`.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic::body::Body;

    use super::*;

    fn with_error_info(answer: Response<Body>) -> Response<Body> {
        super::with_error_info(answer)
    }

    #[test]
    fn an_error_without_details_is_given_some_and_any_other_answer_is_left_alone() {
        for (bare, code, reason) in [
            (Status::unimplemented("no such method"), Code::Unimplemented, "UNIMPLEMENTED"),
            (Status::failed_precondition("not now"), Code::FailedPrecondition, "FAILED_PRECONDITION"),
            (Status::out_of_range("too large"), Code::ResourceExhausted, "REQUEST_TOO_LARGE"),
        ] {
            let answer = with_error_info(bare.clone().into_http());
            let status = Status::from_header_map(answer.headers()).unwrap();
            assert_eq!((status.code(), status.message()), (code, bare.message()));
            assert_eq!(status.get_details_error_info().unwrap().reason, reason);
            assert_eq!(status.metadata().contains_key("grpc-retry-pushback-ms"), code == Code::ResourceExhausted);
        }

        let details = ErrorDetails::with_error_info("THROTTLING", "ssm.amazonaws.com", HashMap::new());
        let full = Status::with_error_details(Code::ResourceExhausted, "Rate exceeded", details);
        for (untouched, reason) in [(full, Some("THROTTLING")), (Status::ok(""), None)] {
            let answer = with_error_info(untouched.into_http());
            let status = Status::from_header_map(answer.headers()).unwrap();
            assert_eq!(status.get_details_error_info().map(|info| info.reason).as_deref(), reason);
        }
    }
}
