//! The account and the region of a call. The credentials determine the account, the signature's scope the region;
//! sessions of assumed roles belong to the role's account and expire.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use axum::http::HeaderMap;
use serde::Serialize;

use super::{clock::now, operation::Refusal};

/// The account of all credentials that are not a session's.
const HOME: &str = "123456789012";
/// The prefix of the access key IDs of sessions, and of no others.
const SESSION_PREFIX: &str = "ASIA";

/// An account in a region, which has a fleet of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Scope {
    /// The account's twelve digits.
    pub account: String,
    /// The region, such as `eu-west-1`.
    pub region: String,
}

/// The sessions that `AssumeRole` created.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<String, Session>);

/// The credentials of an assumed role.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) token: String,
    pub(super) expires: SystemTime,
    account: String,
}

impl Scope {
    /// Returns the scope of an account in a region.
    #[must_use]
    pub fn new(account: &str, region: &str) -> Self {
        Self { account: account.to_owned(), region: region.to_owned() }
    }

    /// Derives the seed of this scope from the common seed.
    pub(super) fn seed(&self, seed: u64) -> u64 {
        let bytes = self.account.bytes().chain([b'/']).chain(self.region.bytes());
        // FNV-1a: the same in every process.
        bytes.fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl Sessions {
    /// Creates a session of the account.
    pub(super) fn begin(&mut self, account: &str, lifetime: Duration) -> Session {
        let letters = |count: usize| std::iter::repeat_with(fastrand::alphanumeric).take(count).collect::<String>();
        let session = Session {
            access_key_id: format!("{SESSION_PREFIX}{}", letters(16).to_ascii_uppercase()),
            secret_access_key: letters(40),
            token: letters(200),
            expires: now() + lifetime,
            account: account.to_owned(),
        };
        self.0.insert(session.access_key_id.clone(), session.clone());
        session
    }

    /// Returns the scope for which a call to `service` is signed. Does not verify the signature itself.
    pub(super) fn scope(&self, headers: &HeaderMap, service: &str) -> Result<Scope, Refusal> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |code, message: &str| Refusal { code, message: Some(message.to_owned()) };
        let credential = header("authorization").strip_prefix("AWS4-HMAC-SHA256 Credential=");
        let credential = credential.and_then(|rest| rest.split(',').next()).unwrap_or_default();
        let [key, _date, region, signed_for, "aws4_request"] = credential.split('/').collect::<Vec<_>>()[..] else {
            return Err(refused("MissingAuthenticationTokenException", "Missing Authentication Token"));
        };
        if signed_for != service {
            let message = format!("Credential should be scoped to correct service: '{service}'.");
            return Err(refused("InvalidSignatureException", &message));
        }
        if !key.starts_with(SESSION_PREFIX) {
            return Ok(Scope::new(HOME, region));
        }
        match self.0.get(key).filter(|session| session.token == header("x-amz-security-token")) {
            None => {
                Err(refused("UnrecognizedClientException", "The security token included in the request is invalid."))
            }
            Some(session) if session.expires <= now() => {
                Err(refused("ExpiredTokenException", "The security token included in the request is expired"))
            }
            Some(session) => Ok(Scope::new(&session.account, region)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(key: &str, token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let credential = format!("{key}/20261101/eu-west-1/ssm/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0");
        headers.insert("authorization", authorization.parse().unwrap());
        headers.insert("x-amz-security-token", token.parse().unwrap());
        headers
    }

    #[test]
    fn a_session_is_its_roles_account_until_it_expires_and_all_else_is_home() {
        let mut sessions = Sessions::default();
        let of = |sessions: &Sessions, key: &str, token: &str| sessions.scope(&signed(key, token), "ssm");
        assert_eq!(of(&sessions, "AKIAEXAMPLE", ""), Ok(Scope::new(HOME, "eu-west-1")));
        let session = sessions.begin("111122223333", Duration::from_mins(15));
        let scope = of(&sessions, &session.access_key_id, &session.token);
        assert_eq!(scope, Ok(Scope::new("111122223333", "eu-west-1")));
        assert_eq!(of(&sessions, &session.access_key_id, "other").unwrap_err().code, "UnrecognizedClientException");
        assert_eq!(of(&sessions, "ASIAUNKNOWN", "").unwrap_err().code, "UnrecognizedClientException");
        let expired = sessions.begin("111122223333", Duration::ZERO);
        assert_eq!(of(&sessions, &expired.access_key_id, &expired.token).unwrap_err().code, "ExpiredTokenException");
    }

    #[test]
    fn a_call_must_be_signed_for_its_service() {
        let sessions = Sessions::default();
        assert_eq!(sessions.scope(&signed("key", ""), "sts").unwrap_err().code, "InvalidSignatureException");
        let unsigned = sessions.scope(&HeaderMap::new(), "ssm").unwrap_err();
        assert_eq!(unsigned.code, "MissingAuthenticationTokenException");
    }

    #[test]
    fn scopes_have_seeds_of_their_own() {
        let seed = |account, region| Scope::new(account, region).seed(1);
        assert_ne!(seed(HOME, "us-east-1"), seed(HOME, "us-east-2"));
        assert_ne!(seed(HOME, "us-east-1"), seed("111122223333", "us-east-1"));
        assert_eq!(seed(HOME, "us-east-1"), seed(HOME, "us-east-1"));
    }
}
