use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use tonic::{Code, Status};

pub(super) use crate::grpc::{name, refusal, refusal_with};

/// Adds an `ErrorInfo` to an error that has none, as that of a request whose body broke off. The reason is the code's own name. For
/// `tower`'s `map_response`.
#[must_use]
pub fn with_error_info<B>(mut answer: Response<B>) -> Response<B> {
    if let Some(status) = Status::from_header_map(answer.headers())
        && status.code() != Code::Ok
        && status.details().is_empty()
    {
        let message = if status.message().is_empty() { status.code().description() } else { status.message() };
        let explained = refusal(status.code(), name(status.code()), message, None);
        // A status that cannot be written leaves the one that was.
        let _written = explained.add_header(answer.headers_mut());
    }
    answer
}

/// The end of a body that ends with this status.
pub(super) fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::body::Body;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn with_error_info(answer: Response<Body>) -> Response<Body> {
        super::with_error_info(answer)
    }

    #[test]
    fn an_error_without_details_is_given_some_and_any_other_answer_is_left_alone() {
        for (bare, code, reason) in [
            (Status::unimplemented("no such method"), Code::Unimplemented, "UNIMPLEMENTED"),
            (Status::failed_precondition("not now"), Code::FailedPrecondition, "FAILED_PRECONDITION"),
            (Status::resource_exhausted("too much"), Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
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
