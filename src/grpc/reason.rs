use tonic::Code;

/// A reason for which the gateway itself lets a call fail: the `reason` and the `cause` of its `ErrorInfo`, the status
/// code, and the labels of `ssm_gateway_refused_calls_total`. README.md lists all of them. What AWS refuses has AWS's
/// own reasons instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    AwsAccessDenied,
    AwsCredentials,
    CallerQuota,
    Cancelled,
    CredentialExpired,
    CredentialMissing,
    CredentialUnknown,
    DeadlineExceeded,
    Draining,
    HeadersTooLarge,
    Internal,
    InvalidArgument,
    ListingExpired,
    MalformedRequest,
    MaxAgeNotAllowed,
    MessageTooLarge,
    MethodNotAllowed,
    OutOfMemory,
    PrincipalNotAllowed,
    QueueFull,
    Stalled,
    TargetMisconfigured,
    TargetNotAllowed,
    TargetUnavailable,
    TooManyCalls,
    TooManyWatches,
    UnknownEncoding,
    UnknownMethod,
    UnknownService,
    UnknownTarget,
    UpstreamProtocol,
}

impl Reason {
    /// Every reason.
    pub(crate) const ALL: [Self; 31] = [
        Self::AwsAccessDenied,
        Self::AwsCredentials,
        Self::CallerQuota,
        Self::Cancelled,
        Self::CredentialExpired,
        Self::CredentialMissing,
        Self::CredentialUnknown,
        Self::DeadlineExceeded,
        Self::Draining,
        Self::HeadersTooLarge,
        Self::Internal,
        Self::InvalidArgument,
        Self::ListingExpired,
        Self::MalformedRequest,
        Self::MaxAgeNotAllowed,
        Self::MessageTooLarge,
        Self::MethodNotAllowed,
        Self::OutOfMemory,
        Self::PrincipalNotAllowed,
        Self::QueueFull,
        Self::Stalled,
        Self::TargetMisconfigured,
        Self::TargetNotAllowed,
        Self::TargetUnavailable,
        Self::TooManyCalls,
        Self::TooManyWatches,
        Self::UnknownEncoding,
        Self::UnknownMethod,
        Self::UnknownService,
        Self::UnknownTarget,
        Self::UpstreamProtocol,
    ];

    /// Returns the code of the call's status.
    pub(crate) fn code(self) -> Code {
        self.row().0
    }

    /// Returns the `reason` of the call's `ErrorInfo`.
    pub(crate) fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Returns the `cause` in the metadata of the call's `ErrorInfo`, where one reason has several.
    pub(crate) fn cause(self) -> Option<&'static str> {
        self.row().2
    }

    /// Returns whether a failure counts as a refusal. A method that does not exist is what AWS's load balancers probe
    /// for by default, and their sign of a healthy gateway.
    pub(crate) fn is_refusal(self) -> bool {
        self != Self::UnknownMethod
    }

    fn row(self) -> (Code, &'static str, Option<&'static str>) {
        match self {
            Self::AwsAccessDenied => (Code::PermissionDenied, "AWS_ACCESS_DENIED", None),
            Self::AwsCredentials => (Code::Unavailable, "AWS_CREDENTIALS", None),
            Self::CallerQuota => (Code::ResourceExhausted, "CALLER_QUOTA", None),
            Self::Cancelled => (Code::Cancelled, "CANCELLED", None),
            Self::CredentialExpired => (Code::Unauthenticated, "UNAUTHENTICATED", Some("expired")),
            Self::CredentialMissing => (Code::Unauthenticated, "UNAUTHENTICATED", Some("missing")),
            Self::CredentialUnknown => (Code::Unauthenticated, "UNAUTHENTICATED", Some("unknown")),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None),
            Self::Draining => (Code::Unavailable, "DRAINING", None),
            Self::HeadersTooLarge => (Code::ResourceExhausted, "REQUEST_TOO_LARGE", Some("headers")),
            Self::Internal => (Code::Internal, "INTERNAL", None),
            Self::InvalidArgument => (Code::InvalidArgument, "INVALID_ARGUMENT", None),
            Self::ListingExpired => (Code::Aborted, "LISTING_EXPIRED", None),
            Self::MalformedRequest => (Code::InvalidArgument, "MALFORMED_REQUEST", None),
            Self::MaxAgeNotAllowed => (Code::PermissionDenied, "CALLER_NOT_ALLOWED", Some("max_age")),
            Self::MessageTooLarge => (Code::ResourceExhausted, "REQUEST_TOO_LARGE", None),
            Self::MethodNotAllowed => (Code::PermissionDenied, "CALLER_NOT_ALLOWED", Some("method")),
            Self::OutOfMemory => (Code::Unavailable, "OVERLOADED", Some("memory")),
            Self::PrincipalNotAllowed => (Code::PermissionDenied, "CALLER_NOT_ALLOWED", Some("principal")),
            Self::QueueFull => (Code::Unavailable, "OVERLOADED", Some("line")),
            Self::Stalled => (Code::Unavailable, "OVERLOADED", Some("stalled")),
            Self::TargetMisconfigured => (Code::FailedPrecondition, "TARGET_MISCONFIGURED", None),
            Self::TargetNotAllowed => (Code::PermissionDenied, "CALLER_NOT_ALLOWED", Some("target")),
            Self::TargetUnavailable => (Code::Unavailable, "TARGET_UNAVAILABLE", None),
            Self::TooManyCalls => (Code::Unavailable, "OVERLOADED", Some("calls")),
            Self::TooManyWatches => (Code::Unavailable, "OVERLOADED", Some("watches")),
            Self::UnknownEncoding | Self::UnknownMethod => (Code::Unimplemented, "UNIMPLEMENTED", None),
            Self::UnknownService => (Code::NotFound, "UNKNOWN_SERVICE", None),
            Self::UnknownTarget => (Code::NotFound, "UNKNOWN_TARGET", None),
            Self::UpstreamProtocol => (Code::Internal, "UPSTREAM_PROTOCOL", None),
        }
    }
}

/// Returns the code's name in the specification: `FAILED_PRECONDITION` for `FailedPrecondition`.
pub(crate) fn code_name(code: Code) -> &'static str {
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
    use super::*;

    #[test]
    fn the_readme_lists_every_reason_with_its_code_and_its_cause_and_no_other() {
        let readme = include_str!("../../README.md");
        let table = readme.split("| what happened | status | reason |").nth(1).unwrap().split("\n\n").next().unwrap();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|row| row.split('|').map(str::trim).collect())
            .filter(|row: &Vec<_>| row.len() == 5)
            .collect();
        let named = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        for reason in Reason::ALL {
            let quoted = |cell: &str, word: &str| named(cell).iter().any(|name| name == word);
            let row = rows.iter().find(|row| {
                row[2] == code_name(reason.code())
                    && quoted(row[3], reason.as_str())
                    && reason.cause().is_none_or(|cause| quoted(row[1], cause) || quoted(row[3], cause))
            });
            assert!(row.is_some(), "{reason:?} is missing");
        }
        let known = |name: &str| {
            Reason::ALL.iter().any(|reason| reason.as_str() == name || reason.cause() == Some(name))
                || ["VALIDATION", "INVALID_FILTER_KEY", "INVALID_NEXT_TOKEN", "THROTTLING", "cause"].contains(&name)
        };
        for row in rows {
            assert!(named(row[3]).iter().all(|name| known(name)), "{row:?}");
        }
    }

    #[test]
    fn no_reason_is_left_out_and_one_reason_has_one_code() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let same = Reason::ALL.iter().filter(|other| other.as_str() == reason.as_str());
            assert!(same.clone().all(|other| other.code() == reason.code()), "{reason:?}");
        }
    }
}
