use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jwks::{self, Key};
use crate::{
    access::Principal,
    clock,
    edge::{
        credential::{Credential, InvalidCredential},
        watched::{FileError, Watched},
    },
    setting::{InvalidSetting, NOT_EMPTY, bounded, require},
};

/// The longest subject that names a caller.
const MAX_SUBJECT: usize = 255;
/// How many verified tokens are remembered: checking a signature costs more than all else of a call.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9999);

/// The issuer whose JWTs authenticate callers; the `[auth.jwt]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file with the issuer's public keys, a JWKS, which is loaded again when it changes.
    pub jwks: PathBuf,
    /// The issuer that the `iss` claim must name.
    pub issuer: String,
    /// The audiences of which the `aud` claim must name one.
    pub audiences: Vec<String>,
    /// The algorithms that tokens may be signed by.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<SigningAlgorithm>,
    /// The largest difference between the issuer's clock and the gateway's.
    #[serde(default = "clock_skew", with = "humantime_serde")]
    pub clock_skew: Duration,
}

/// An algorithm that a JWT may be signed by. All sign with a private key: whoever can check a shared secret can sign
/// with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of RFC 7518")]
pub enum SigningAlgorithm {
    ES256,
    ES384,
    /// `Ed25519` is its newer name, of RFC 9864.
    #[serde(alias = "Ed25519")]
    EdDSA,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}

fn algorithms() -> Vec<SigningAlgorithm> {
    vec![SigningAlgorithm::RS256, SigningAlgorithm::ES256]
}

fn clock_skew() -> Duration {
    Duration::from_secs(30)
}

/// Verifies the JWTs of one issuer.
#[derive(Debug)]
pub(super) struct Jwt {
    keys: Watched<Keys>,
    issuer: String,
    audiences: Vec<String>,
    clock_skew: Duration,
}

/// The issuer's public keys, and the credentials of the tokens that they verified, by the tokens' hashes.
#[derive(Debug)]
struct Keys {
    keys: Vec<Key>,
    verified: Mutex<LruCache<[u8; 32], Credential>>,
}

impl Config {
    /// Checks every setting. The file is read by [`Config::load`].
    ///
    /// # Errors
    /// The first setting that no token could meet, or that a clock cannot take.
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        let Self { jwks: _, issuer: _, audiences, algorithms, clock_skew } = self;
        require(!audiences.is_empty(), "audiences", NOT_EMPTY)?;
        require(!algorithms.is_empty(), "algorithms", NOT_EMPTY)?;
        bounded("clock_skew", *clock_skew)
    }

    /// Loads the keys, and again whenever their file has changed, for which it looks `every` so often.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be read or holds no usable key.
    pub(super) async fn load(self, every: Duration) -> Result<Jwt, FileError> {
        let Self { jwks: file, issuer, audiences, algorithms, clock_skew } = self;
        let algorithms: Vec<Algorithm> = algorithms.into_iter().map(Algorithm::from).collect();
        let path = file.clone();
        let keys = Watched::load(vec![file], every, move |contents| {
            let keys = jwks::read(&path, &contents.concat(), &algorithms)?;
            Ok(Keys { keys, verified: Mutex::new(LruCache::new(REMEMBERED)) })
        });
        Ok(Jwt { keys: keys.await?, issuer, audiences, clock_skew })
    }
}

impl Jwt {
    /// Returns the credential of a token, of which `hash` is the SHA-256. A token that was verified before may have
    /// expired since.
    ///
    /// # Errors
    /// [`InvalidCredential`] if the issuer did not sign the token for this gateway, or the token has expired.
    pub(super) fn verify(&self, token: &str, hash: [u8; 32]) -> Result<Credential, InvalidCredential> {
        let keys = self.keys.get();
        let verified = || keys.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verified().get(&hash) {
            return Ok(known.clone());
        }
        let claims = signed_claims(token, &keys.keys).map_err(InvalidCredential::Unknown)?;
        let credential = self.credential(&claims)?;
        verified().put(hash, credential.clone());
        Ok(credential)
    }

    /// Returns the credential of a token that the issuer signed, by its claims.
    fn credential(&self, claims: &Map<String, Value>) -> Result<Credential, InvalidCredential> {
        let text = |claim| claims.get(claim).and_then(Value::as_str);
        let require = |is_so: bool, reason| if is_so { Ok(()) } else { Err(InvalidCredential::Unknown(reason)) };
        require(text("iss") == Some(&self.issuer), "its `iss` is not auth.jwt.issuer, as one string")?;
        let is_ours = |audience: &Value| self.audiences.iter().any(|ours| audience.as_str() == Some(ours));
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
            Some(audience) => is_ours(audience),
            None => false,
        };
        require(is_for_us, "its `aud` names none of auth.jwt.audiences")?;
        let is_name = |subject: &&str| {
            (1..=MAX_SUBJECT).contains(&subject.len()) && subject.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let subject = text("sub").filter(is_name);
        let subject =
            subject.ok_or(InvalidCredential::Unknown("its `sub` is not 1 to 255 visible ASCII characters"))?;
        let seconds = |claim| match claims.get(claim) {
            Some(seconds) => seconds.as_f64().map(Some).ok_or(InvalidCredential::Unknown("a time of it is no number")),
            None => Ok(None),
        };
        let now = clock::wall();
        let not_before = seconds("nbf")?.map(time);
        let is_begun = |begin: Option<SystemTime>| begin.is_some_and(|begin| begin <= now + self.clock_skew);
        require(not_before.is_none_or(is_begun), "its `nbf` is not reached yet")?;
        let expires = seconds("exp")?.ok_or(InvalidCredential::Unknown("it has no `exp`"))?;
        let expires = time(expires).and_then(|expires| expires.checked_add(self.clock_skew));
        if expires.is_some_and(|expires| expires <= now) {
            return Err(InvalidCredential::Expired);
        }
        Ok(Credential { principal: Principal::jwt(subject), expires })
    }
}

/// Returns the time of so many seconds since 1970, which may have a fraction; none if no clock can show it.
fn time(seconds: f64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds.max(0.0)).ok()?)
}

/// Returns the claims of a token that one of these keys signed, or why the token is refused. Header and claims are
/// decoded here, since the `jsonwebtoken` crate ignores `crit`, accepts a list as the issuer, and does not know
/// `Ed25519`.
fn signed_claims(token: &str, keys: &[Key]) -> Result<Map<String, Value>, &'static str> {
    const MALFORMED: &str = "it is no JWT, which is three parts in base64url";
    let (message, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
    let (header, claims) = message.split_once('.').ok_or(MALFORMED)?;
    let header = object(header).ok_or("its header is no JSON object in base64url")?;
    if header.contains_key("crit") {
        return Err("its `crit` names extensions that must be understood, and none is known here (RFC 7515, 4.1.11)");
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(jwks::algorithm);
    let algorithm = algorithm.ok_or("its `alg` is not known")?;
    let id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(&**id).filter(|id| !id.is_empty()),
        Some(_) => return Err("its `kid` is not a string"),
    };
    let mut candidates = keys.iter().filter(|key| key.is_candidate(algorithm, id)).peekable();
    candidates.peek().ok_or("no usable key of the issuer has its `kid` and is for its `alg`")?;
    let is_signed_by = |key: &Key| {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, algorithm).unwrap_or(false)
    };
    if candidates.any(is_signed_by) {
        object(claims).ok_or("its claims are no JSON object in base64url")
    } else {
        Err("no key of the issuer made its signature")
    }
}

fn object(base64: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(base64).ok()?).ok()
}

impl From<SigningAlgorithm> for Algorithm {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::ES256 => Self::ES256,
            SigningAlgorithm::ES384 => Self::ES384,
            SigningAlgorithm::EdDSA => Self::EdDSA,
            SigningAlgorithm::PS256 => Self::PS256,
            SigningAlgorithm::PS384 => Self::PS384,
            SigningAlgorithm::PS512 => Self::PS512,
            SigningAlgorithm::RS256 => Self::RS256,
            SigningAlgorithm::RS384 => Self::RS384,
            SigningAlgorithm::RS512 => Self::RS512,
        }
    }
}
