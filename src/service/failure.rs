use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation};

pub(super) use crate::grpc::GATEWAY;
use crate::{grpc::refusal_with, proto::Unreachable};

/// The `domain` of errors that AWS words, or would.
pub(super) const AWS: &str = "ssm.amazonaws.com";

/// The longest message, in bytes: some clients take 8 KiB of trailers in all, and a caller may have sent a mebibyte.
const MAX_MESSAGE: usize = 1024;
/// The longest name of a caller's that is repeated to it.
const MAX_NAME: usize = 128;

/// What a caller is told when a call fails, before it is put on the wire: a code, one `google.rpc.ErrorInfo`, and what
/// else applies.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    message: String,
    domain: &'static str,
    reason: String,
    metadata: HashMap<String, String>,
    violations: Vec<FieldViolation>,
    unknown_target: Option<String>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with nothing but its `ErrorInfo`. The message is one sentence that a caller can act on.
    pub(super) fn new(code: Code, domain: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self {
            code,
            message,
            domain,
            reason: reason.into(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            unknown_target: None,
            retry_after: None,
        }
    }

    /// A target, or a glob, that means no target of the gateway.
    pub(super) fn unknown_target(name: &str) -> Self {
        let name = name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or_default();
        let message = format!("the gateway has no target {name:?}");
        let failure = Self::new(Code::NotFound, GATEWAY, "UNKNOWN_TARGET", message).with("target", Some(name));
        Self { unknown_target: Some(name.to_owned()), ..failure }
    }

    /// Adds an entry to the `ErrorInfo`, if there is a value.
    pub(super) fn with(mut self, key: &str, value: Option<&str>) -> Self {
        self.metadata.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        self
    }

    /// Names a field at fault, as a protobuf path, and what is wrong with it.
    pub(super) fn at(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push(FieldViolation::new(field, description));
        self
    }

    /// Names a field at fault, for the reason that the message gives.
    pub(super) fn at_field(self, field: &str) -> Self {
        let description = self.message.clone();
        self.at(field, description)
    }

    /// Tells it in a stream over several targets, in place of the nodes of one.
    pub(super) fn unreachable(&self) -> Unreachable {
        let Self { code, reason, message, retry_after, .. } = self;
        // A wait too long for the wire is none that anybody counts on.
        let retry_after = retry_after.and_then(|delay| delay.try_into().ok());
        Unreachable { code: i32::from(*code), reason: reason.clone(), message: message.clone(), retry_after }
    }

    /// Says when to ask again, where that is known.
    pub(super) fn retry_after(self, delay: Option<Duration>) -> Self {
        Self { retry_after: delay, ..self }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, domain, reason, metadata, violations, unknown_target, retry_after } = failure;
        let mut details = ErrorDetails::with_error_info(reason, domain, metadata);
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        if let Some(name) = unknown_target {
            details.set_resource_info("target", name, "", &*message);
        }
        refusal_with(code, details, message, retry_after)
    }
}
