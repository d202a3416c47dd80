//! Authorisation of a call, before anything is looked up: who calls, which method, about which targets, how fresh.

use std::{collections::BTreeSet, time::Duration};

use http::Extensions;

use super::{compress::Compression, serving::Serving, status, validate};
use crate::{
    access::{Denied, Method, Policy, Principal, glob},
    grpc::{CallNotes, Failure, Reason},
    model::TargetName,
    read::Target,
};

/// The caller of a method and what the policy allows it, where notes for the call's log line go, and how its answers
/// are compressed.
#[derive(Debug)]
pub(super) struct CallContext<'a> {
    serving: &'a Serving,
    principal: Principal,
    method: Method,
    pub(super) notes: CallNotes,
    /// How its answers are compressed, if they are.
    pub(super) compression: Option<Compression>,
}

impl<'a> CallContext<'a> {
    /// Authorises a principal, which the edge left among the request's extensions, to call the method at all. A caller
    /// without a principal is anonymous.
    ///
    /// # Errors
    /// PERMISSION_DENIED, with the cause `principal` or `method`.
    pub(super) fn new(
        serving: &'a Serving,
        extensions: &Extensions,
        method: Method,
        compression: Option<Compression>,
    ) -> Result<Self, Failure> {
        let principal = extensions.get().cloned().unwrap_or_else(Principal::anonymous);
        let notes = extensions.get().cloned().unwrap_or_default();
        let call = Self { serving, principal, method, notes, compression };
        call.policy().check(&call.principal, method, None, None).map_err(|denied| call.denied(denied, ""))?;
        Ok(call)
    }

    /// Authorises a call about the target of this name, or about the default target if the name is empty.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the name is too long, or empty and there is no default; PERMISSION_DENIED.
    pub(super) fn target(&self, name: &str, max_age: Option<Duration>) -> Result<TargetName, Failure> {
        let target = if name.is_empty() {
            self.default_target("target", max_age)?
        } else {
            validate::name_length("target", name)?;
            self.authorise(name, name, max_age)?;
            TargetName::from(name)
        };
        self.notes.note(|noted| noted.target = Some(target.clone()));
        Ok(target)
    }

    /// Authorises a call about all targets that the names and globs match, each once, or about the default target if
    /// there is neither. A glob matches no target that the caller may not ask about.
    ///
    /// # Errors
    /// As for [`CallContext::target`], and `NOT_FOUND` for a name or glob that matches no target.
    pub(super) fn targets(&self, patterns: &[String], max_age: Option<Duration>) -> Result<Vec<TargetName>, Failure> {
        validate::pattern_count(patterns.len())?;
        let mut targets = BTreeSet::new();
        if patterns.iter().all(String::is_empty) {
            targets.insert(self.default_target("targets", max_age)?);
        } else {
            let visible: Vec<&TargetName> =
                self.serving.listings.targets().map(Target::name).filter(|name| self.sees(name)).collect();
            for (index, pattern) in patterns.iter().enumerate().filter(|(_, pattern)| !pattern.is_empty()) {
                validate::name_length(&format!("targets[{index}]"), pattern)?;
                let mut matching = visible.iter().filter(|target| glob::matches(pattern, target.as_str())).peekable();
                if matching.peek().is_none() {
                    // That a target does not exist is an answer, too: only for callers who may ask about all that the
                    // glob can match.
                    self.authorise(pattern, pattern, None)?;
                    return Err(status::unknown_target(pattern));
                }
                targets.extend(matching.map(|&target| target.clone()));
            }
            for target in &targets {
                self.authorise(target.as_str(), target.as_str(), max_age)?;
            }
        }
        self.notes.note(|noted| {
            noted.targets = targets.len();
            noted.target = targets.first().filter(|_| targets.len() == 1).cloned();
        });
        Ok(targets.into_iter().collect())
    }

    /// Returns whether the caller may know of this target.
    pub(super) fn sees(&self, target: &TargetName) -> bool {
        self.policy().check(&self.principal, self.method, Some(target.as_str()), None).is_ok()
    }

    /// Authorises a call about the default target, in place of the empty `field`.
    fn default_target(&self, field: &str, max_age: Option<Duration>) -> Result<TargetName, Failure> {
        let target = validate::default_target(field, self.serving.default_target.as_ref())?;
        self.authorise(target.as_str(), "", max_age)?;
        Ok(target)
    }

    /// Authorises a call about a target, or about all that a glob can match. `called` is what the caller wrote, for the
    /// message.
    fn authorise(&self, target: &str, called: &str, max_age: Option<Duration>) -> Result<(), Failure> {
        let checked = self.policy().check(&self.principal, self.method, Some(target), max_age);
        checked.map_err(|denied| self.denied(denied, called))
    }

    fn policy(&self) -> &Policy {
        &self.serving.policy
    }

    fn denied(&self, denied: Denied, called: &str) -> Failure {
        let Self { principal, method, .. } = self;
        let target = if called.is_empty() { "the default target".to_owned() } else { format!("target {called:?}") };
        match denied {
            Denied::Principal => {
                Failure::new(Reason::PrincipalNotAllowed, format!("no rule of the gateway allows {principal} anything"))
            }
            Denied::Method => Failure::new(
                Reason::MethodNotAllowed,
                format!("no rule of the gateway allows {principal} to call {method}"),
            ),
            Denied::Target => Failure::new(
                Reason::TargetNotAllowed,
                format!("no rule of the gateway allows {principal} to call {method} for {target}"),
            ),
            Denied::MaxAge(least) => {
                let least = humantime::format_duration(least).to_string();
                let message = format!("{principal} may not ask for a max_age below {least} of {target}");
                let failure = Failure::new(Reason::MaxAgeNotAllowed, message).with("min_max_age", Some(&least));
                failure.at_field("read_options.max_age")
            }
        }
    }
}
