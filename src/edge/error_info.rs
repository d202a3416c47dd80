use std::collections::HashMap;

use http::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Gives an `ErrorInfo` to an error that has none: those that tonic raises before a handler runs, for an unknown method
/// or a message too large. The code's own name is the reason. For `tower`'s `map_response`.
#[must_use]
pub fn with_error_info(mut answer: Response<Body>) -> Response<Body> {
    if let Some(status) = Status::from_header_map(answer.headers())
        && status.code() != Code::Ok
        && status.details().is_empty()
    {
        let message = if status.message().is_empty() { status.code().description() } else { status.message() };
        // A status that cannot be written leaves the one that was.
        let _written = explained(status.code(), message).add_header(answer.headers_mut());
    }
    answer
}

/// A status with an `ErrorInfo` of the gateway's, whose reason is the code's own name.
pub(super) fn explained(code: Code, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason(code), "ssm-gateway", HashMap::new());
    Status::with_error_details(code, message, details)
}

/// `OutOfRange` as `OUT_OF_RANGE`.
fn reason(code: Code) -> String {
    let mut reason = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !reason.is_empty() {
            reason.push('_');
        }
        reason.push(letter.to_ascii_uppercase());
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_details_is_given_some_and_any_other_answer_is_left_alone() {
        let bare = with_error_info(Status::out_of_range("too large").into_http());
        let status = Status::from_header_map(bare.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, "too large"));
        assert_eq!(status.get_details_error_info().unwrap().reason, "OUT_OF_RANGE");

        let details = ErrorDetails::with_error_info("THROTTLING", "ssm.amazonaws.com", HashMap::new());
        let full = Status::with_error_details(Code::ResourceExhausted, "Rate exceeded", details);
        for (untouched, reason) in [(full, Some("THROTTLING")), (Status::ok(""), None)] {
            let answer = with_error_info(untouched.into_http());
            let status = Status::from_header_map(answer.headers()).unwrap();
            assert_eq!(status.get_details_error_info().map(|info| info.reason).as_deref(), reason);
        }
    }
}
