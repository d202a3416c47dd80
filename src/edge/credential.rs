use std::time::SystemTime;

use tokio::time::Instant;

use crate::{
    access::Principal,
    grpc::{Failure, Reason},
};

/// A proof of who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credential {
    /// The caller.
    pub(super) principal: Principal,
    /// When the proof expires, if it does.
    pub(super) expires: Option<SystemTime>,
}

/// Why a caller could not be authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InvalidCredential {
    /// The caller has no credential, and needs one.
    Missing,
    /// The caller's credential is malformed, or the gateway does not know it. The reason is a fixed text, so that
    /// nothing of the credential can get into it.
    Unknown(&'static str),
    /// The caller's credential has expired.
    Expired,
}

/// When the credential of a request expires; among the extensions of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry(pub(super) Instant);

impl Credential {
    /// The credential of a caller who proves nothing.
    pub(super) fn anonymous() -> Self {
        Self { principal: Principal::anonymous(), expires: None }
    }
}

/// Reports no more of the credential than what is wrong with it.
impl From<InvalidCredential> for Failure {
    fn from(invalid: InvalidCredential) -> Self {
        let (reason, message) = match invalid {
            InvalidCredential::Missing => (
                Reason::CredentialMissing,
                "the call has no credential: a client certificate for a name, or a bearer token in its authorization",
            ),
            InvalidCredential::Unknown(_) => {
                (Reason::CredentialUnknown, "the call's authorization is no bearer token that the gateway knows")
            }
            InvalidCredential::Expired => {
                (Reason::CredentialExpired, "the caller's credential has expired: call with a new one")
            }
        };
        Self::new(reason, message)
    }
}
