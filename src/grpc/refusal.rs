use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of errors that the gateway alone knows.
pub(crate) const GATEWAY: &str = "ssm-gateway";

/// Returns the status of a call whose request is not what its method takes.
pub(crate) fn malformed(message: impl Into<String>) -> Status {
    refusal(Code::InvalidArgument, "MALFORMED_REQUEST", message, None)
}

/// Returns the status of a call whose path names no method of the gateway.
pub(crate) fn no_such_method() -> Status {
    refusal(Code::Unimplemented, "UNIMPLEMENTED", "the gateway has no such method", None)
}

/// Returns a status with an `ErrorInfo` of the gateway's and, where a retry helps, the time until then.
pub(crate) fn refusal(code: Code, reason: &str, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    refusal_with(code, ErrorDetails::with_error_info(reason, GATEWAY, HashMap::new()), message, retry_after)
}

/// Returns a status with these details, to which the time until a retry is added.
pub(crate) fn refusal_with(
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

/// Returns the code's name in the specification: `FAILED_PRECONDITION` for `FailedPrecondition`.
pub(crate) fn name(code: Code) -> &'static str {
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
