use std::time::Duration;

use http::Extensions;
use tonic::Code;

use super::{
    compress::Compression,
    failure::{Failure, GATEWAY},
};
use crate::{
    access::{Denied, Method, Policy, Principal},
    grpc::CallNotes,
    model::TargetName,
};

/// Who calls a method, what the policy lets it ask, and what is noted of the call.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    policy: &'a Policy,
    principal: Principal,
    method: Method,
    pub(super) notes: CallNotes,
    /// How its answers are compressed, if they are.
    pub(super) compression: Option<Compression>,
}

impl<'a> Caller<'a> {
    /// The caller as the edge proved it, among a request's extensions. Who was proven by nobody is anonymous.
    pub(super) fn new(policy: &'a Policy, extensions: &Extensions, method: Method) -> Self {
        let principal = extensions.get().cloned().unwrap_or_else(Principal::anonymous);
        Self { policy, principal, method, notes: extensions.get().cloned().unwrap_or_default(), compression: None }
    }

    /// The same, whose answers are compressed so.
    pub(super) fn taking(self, compression: Option<Compression>) -> Self {
        Self { compression, ..self }
    }

    /// Checks that it may ask about a target, or all that a glob could mean, before anything about them is told. It called
    /// them so itself, or did not name the default.
    ///
    /// # Errors
    /// PERMISSION_DENIED, which names what is missing.
    pub(super) fn may_ask(&self, target: &str, called: &str, max_age: Option<Duration>) -> Result<(), Failure> {
        let checked = self.policy.check(&self.principal, self.method, Some(target), max_age);
        checked.map_err(|denied| self.denied(denied, called))
    }

    /// Checks that it may call the method at all.
    ///
    /// # Errors
    /// PERMISSION_DENIED, which names what is missing.
    pub(super) fn may_call(&self) -> Result<(), Failure> {
        let checked = self.policy.check(&self.principal, self.method, None, None);
        checked.map_err(|denied| self.denied(denied, ""))
    }

    /// Whether it may know of this target.
    pub(super) fn sees(&self, target: &TargetName) -> bool {
        self.policy.check(&self.principal, self.method, Some(target.as_str()), None).is_ok()
    }

    fn denied(&self, denied: Denied, called: &str) -> Failure {
        let Self { principal, method, .. } = self;
        let target = if called.is_empty() { "the default target".to_owned() } else { format!("target {called:?}") };
        let (cause, message) = match denied {
            Denied::Principal => ("principal", format!("no rule of the gateway allows {principal} anything")),
            Denied::Method => ("method", format!("no rule of the gateway allows {principal} to call {method}")),
            Denied::Target => {
                ("target", format!("no rule of the gateway allows {principal} to call {method} for {target}"))
            }
            Denied::MaxAge(least) => {
                let least = humantime::format_duration(least);
                let message = format!("{principal} may not ask for a max_age below {least} of {target}");
                let failure = failure("max_age", message).with("min_max_age", Some(&least.to_string()));
                return failure.at_field("read_options.max_age");
            }
        };
        failure(cause, message)
    }
}

fn failure(cause: &str, message: String) -> Failure {
    Failure::new(Code::PermissionDenied, GATEWAY, "CALLER_NOT_ALLOWED", message).with("cause", Some(cause))
}
