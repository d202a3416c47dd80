use std::{collections::HashMap, fmt, time::Duration};

use http::HeaderMap;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, FieldViolation, QuotaViolation, StatusExt as _};

use super::{Reason, code_name};

/// The `domain` of errors that the gateway alone knows.
const GATEWAY: &str = "ssm-gateway";
/// The `domain` of errors that AWS words, or would.
const AWS: &str = "ssm.amazonaws.com";
/// The longest message, in bytes: some clients take 8 KiB of trailers in all, and a caller may have sent a mebibyte.
const MAX_MESSAGE: usize = 1024;

/// A call that fails: its status code, the message, one `google.rpc.ErrorInfo`, and what else applies. It stays in this
/// form until the edge has counted and logged it, and is written to the wire once.
#[derive(Debug, Clone)]
pub struct Failure(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Kind,
    message: String,
    metadata: Vec<(&'static str, String)>,
    violations: Vec<FieldViolation>,
    quota: Option<QuotaViolation>,
    unknown_target: Option<String>,
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone)]
enum Kind {
    Gateway(Reason),
    Aws { code: Code, reason: String },
}

impl Failure {
    /// Builds a failure for a reason of the gateway's own. The message is one sentence that a caller can act on.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self::of(Kind::Gateway(reason), message.into()).with("cause", reason.cause())
    }

    /// Builds a failure that AWS worded, or would word.
    pub(crate) fn of_aws(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of(Kind::Aws { code, reason: reason.into() }, message.into())
    }

    /// Builds the failure of a request that is not what its method takes.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(Reason::MalformedRequest, message)
    }

    /// Builds the failure of a call whose path names no method of the gateway.
    pub(crate) fn no_such_method() -> Self {
        Self::new(Reason::UnknownMethod, "the gateway has no such method")
    }

    fn of(kind: Kind, mut message: String) -> Self {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self(Box::new(Parts {
            kind,
            message,
            metadata: Vec::new(),
            violations: Vec::new(),
            quota: None,
            unknown_target: None,
            retry_after: None,
        }))
    }

    /// Adds an entry to the metadata of the `ErrorInfo`, if there is a value.
    pub(crate) fn with(mut self, key: &'static str, value: Option<&str>) -> Self {
        self.0.metadata.extend(value.map(|value| (key, value.to_owned())));
        self
    }

    /// Names a field at fault, as a protobuf path, and what is wrong with it.
    pub(crate) fn at(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.0.violations.push(FieldViolation::new(field, description));
        self
    }

    /// Names a field at fault, for the reason that the message gives.
    pub(crate) fn at_field(self, field: &str) -> Self {
        let description = self.0.message.clone();
        self.at(field, description)
    }

    /// Names the quota that `subject` exceeds.
    pub(crate) fn beyond_quota(mut self, subject: &str, quota: &str) -> Self {
        self.0.quota = Some(QuotaViolation::new(subject, quota));
        self
    }

    /// Names the target that the gateway does not have.
    pub(crate) fn of_unknown_target(mut self, name: &str) -> Self {
        self.0.unknown_target = Some(name.to_owned());
        self.with("target", Some(name))
    }

    /// Says when to call again, where that is known.
    pub(crate) fn retry_after(mut self, delay: Option<Duration>) -> Self {
        self.0.retry_after = delay;
        self
    }

    /// Returns the code of the status.
    pub(crate) fn code(&self) -> Code {
        match &self.0.kind {
            Kind::Gateway(reason) => reason.code(),
            Kind::Aws { code, .. } => *code,
        }
    }

    /// Returns the gateway's own reason; none of a failure that AWS worded.
    pub(crate) fn own_reason(&self) -> Option<Reason> {
        match self.0.kind {
            Kind::Gateway(reason) => Some(reason),
            Kind::Aws { .. } => None,
        }
    }

    /// Returns the `reason` of the `ErrorInfo`.
    pub(crate) fn reason(&self) -> &str {
        match &self.0.kind {
            Kind::Gateway(reason) => reason.as_str(),
            Kind::Aws { reason, .. } => reason,
        }
    }

    /// Returns an entry of the metadata of the `ErrorInfo`.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.0.metadata.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// Returns the message of the status.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns how long to wait before another call, where that is known.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Writes the status, as headers of an answer without messages or as trailers.
    #[expect(clippy::expect_used, reason = "there is no status without its headers, and these are always valid")]
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        self.status().add_header(headers).expect("percent-encoded text, base64 and ASCII are header values");
    }

    fn status(&self) -> Status {
        let Parts { message, metadata, violations, quota, unknown_target, retry_after, .. } = &*self.0;
        let domain = if self.own_reason().is_some() { GATEWAY } else { AWS };
        let metadata: HashMap<_, _> = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let mut details = ErrorDetails::with_error_info(self.reason(), domain, metadata);
        if !violations.is_empty() {
            details.set_bad_request(violations.clone());
        }
        if let Some(quota) = quota {
            details.set_quota_failure(vec![quota.clone()]);
        }
        if let Some(name) = unknown_target {
            details.set_resource_info("target", name, "", message);
        }
        if retry_after.is_some() {
            details.set_retry_info(*retry_after);
        }
        let mut status = Status::with_error_details(self.code(), message, details);
        if self.code() == Code::ResourceExhausted {
            status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(pushback(*retry_after)));
        }
        if self.own_reason() == Some(Reason::UnknownEncoding) {
            status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static("gzip,zstd,identity"));
        }
        status
    }
}

/// Returns the milliseconds that clients obey exactly before they retry. Without the jitter all of them would come back
/// at once; a negative number forbids the retry.
fn pushback(retry_after: Option<Duration>) -> i64 {
    retry_after
        .map_or(-1, |delay| i64::try_from(delay.mul_f64(1.0 + fastrand::f64() / 2.0).as_millis()).unwrap_or(i64::MAX))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", code_name(self.code()), self.message())
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(failure: &Failure) -> Status {
        let mut headers = HeaderMap::new();
        failure.write(&mut headers);
        Status::from_header_map(&headers).unwrap()
    }

    #[test]
    fn every_reason_is_written_with_its_code_and_its_cause() {
        for reason in Reason::ALL {
            let status = written(&Failure::new(reason, "no"));
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), &*info.reason, &*info.domain), (reason.code(), reason.as_str(), "ssm-gateway"));
            assert_eq!(info.metadata.get("cause").map(String::as_str), reason.cause());
        }
    }

    #[test]
    fn what_aws_worded_is_of_its_domain_and_details_are_written_as_they_are_given() {
        let failure = Failure::of_aws(Code::InvalidArgument, "VALIDATION", "no such key").at_field("filters[0].key");
        let status = written(&failure);
        assert_eq!(status.get_details_error_info().unwrap().domain, "ssm.amazonaws.com");
        let violation = &status.get_details_bad_request().unwrap().field_violations[0];
        assert_eq!((&*violation.field, &*violation.description), ("filters[0].key", "no such key"));
        let status = written(&Failure::new(Reason::UnknownTarget, "nobody").of_unknown_target("a"));
        let resource = status.get_details_resource_info().unwrap();
        assert_eq!((&*resource.resource_type, &*resource.resource_name), ("target", "a"));
        let status = written(&Failure::new(Reason::CallerQuota, "too often").beyond_quota("token:a", "once a second"));
        assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "token:a");
    }

    #[test]
    fn callers_are_pushed_back_for_a_little_longer_than_the_advice_or_for_good() {
        let pushback = |failure: &Failure| -> Option<i64> {
            Some(written(failure).metadata().get("grpc-retry-pushback-ms")?.to_str().unwrap().parse().unwrap())
        };
        let advised = Failure::new(Reason::CallerQuota, "").retry_after(Some(Duration::from_secs(2)));
        assert!((2000..=3000).contains(&pushback(&advised).unwrap()));
        assert_eq!(written(&advised).get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(2)));
        assert_eq!(pushback(&Failure::new(Reason::MessageTooLarge, "")), Some(-1));
        assert_eq!(pushback(&Failure::new(Reason::Draining, "").retry_after(Some(Duration::from_secs(1)))), None);
    }

    #[test]
    fn a_message_is_cut_at_a_character() {
        let failure = Failure::new(Reason::Internal, "ä".repeat(MAX_MESSAGE));
        assert_eq!(failure.message().len(), MAX_MESSAGE);
    }
}
