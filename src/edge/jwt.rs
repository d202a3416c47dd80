use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{JwkSet, PublicKeyUse},
};
use lru::LruCache;
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{
    credential::{Credential, InvalidCredential},
    watched::{FileError, Watched},
};
use crate::model::{Causes, Principal};

/// The longest subject that names a caller.
const MAX_SUBJECT: usize = 255;
/// How many tokens are known again without a look at their signature, which costs more than all else of a call.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9999);

/// Whose JWTs prove a caller; the `[auth.jwt]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The issuer's public keys, a JWKS; used anew when the file changes.
    pub jwks: PathBuf,
    /// The issuer that the `iss` claim must name.
    pub issuer: String,
    /// The audiences of which the `aud` claim must name one.
    pub audiences: Vec<String>,
    /// How tokens may be signed.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<SigningAlgorithm>,
    /// By how much the issuer's clock may differ from ours.
    #[serde(default = "clock_skew", with = "humantime_serde")]
    pub clock_skew: Duration,
}

/// How a JWT may be signed: by a private key alone, since whoever can check a shared secret can sign with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of RFC 7518")]
pub enum SigningAlgorithm {
    ES256,
    ES384,
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

/// Tells whose JWT it is.
#[derive(Debug)]
pub(super) struct Jwt {
    keys: Watched<Keys>,
    algorithms: Vec<Algorithm>,
    validation: Validation,
}

/// The issuer's public keys, and whose tokens were found to be signed by them, by the tokens' hashes.
#[derive(Debug)]
struct Keys {
    keys: Vec<Key>,
    verified: Mutex<LruCache<[u8; 32], Credential>>,
}

/// One of the issuer's public keys.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970, not always whole.
    exp: f64,
}

impl Config {
    /// Reads the keys, and again when they change.
    pub(super) async fn load(self, every: Duration) -> Result<Jwt, FileError> {
        let leeway = self.clock_skew.as_secs() + u64::from(self.clock_skew.subsec_nanos() > 0);
        let mut validation = Validation { leeway, validate_nbf: true, ..Validation::default() };
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let algorithms = self.algorithms.iter().map(|&algorithm| algorithm.into()).collect();
        let file = self.jwks.clone();
        let keys = Watched::load(vec![self.jwks], every, move |contents| keys(&file, &contents.concat())).await?;
        Ok(Jwt { keys, algorithms, validation })
    }
}

fn keys(file: &Path, jwks: &[u8]) -> Result<Keys, FileError> {
    let wrong = |reason: String| FileError::Content { file: file.to_owned(), reason };
    let set: JwkSet = serde_json::from_slice(jwks).map_err(|error| wrong(error.to_string()))?;
    let is_for_signatures = |usage: &Option<PublicKeyUse>| matches!(usage, None | Some(PublicKeyUse::Signature));
    let keys = set.keys.iter().filter(|key| is_for_signatures(&key.common.public_key_use)).filter_map(|key| {
        let algorithm = key.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let id = key.common.key_id.clone();
        // A key of a kind that is not known is passed over, as RFC 7517 has it in section 5.
        DecodingKey::from_jwk(key).ok().map(|decoding| Key { id, algorithm, decoding })
    });
    let keys: Vec<Key> = keys.filter(|key| key.decoding.family() != AlgorithmFamily::Hmac).collect();
    if keys.is_empty() {
        return Err(wrong("holds no key that signatures can be checked with".to_owned()));
    }
    Ok(Keys { keys, verified: Mutex::new(LruCache::new(REMEMBERED)) })
}

impl Jwt {
    /// Tells whose token it is, by this SHA-256 if it was seen before, and when it runs out, which may have been since.
    pub(super) fn verify(&self, token: &str, hash: [u8; 32]) -> Result<Credential, InvalidCredential> {
        let keys = self.keys.get();
        let verified = || keys.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verified().get(&hash) {
            return Ok(known.clone());
        }
        let credential = self.verify_signature(token, &keys.keys)?;
        verified().put(hash, credential.clone());
        Ok(credential)
    }

    fn verify_signature(&self, token: &str, keys: &[Key]) -> Result<Credential, InvalidCredential> {
        let header = decode_header(token).map_err(|_malformed| InvalidCredential::Unknown)?;
        if !self.algorithms.contains(&header.alg) {
            debug!(algorithm = ?header.alg, "a JWT was refused: it may not be signed so");
            return Err(InvalidCredential::Unknown);
        }
        let name = format!("{:?}", header.alg);
        let is_meant = |key: &&Key| {
            header.kid.as_ref().is_none_or(|id| key.id.as_ref() == Some(id))
                && key.algorithm.as_ref().is_none_or(|algorithm| *algorithm == name)
                && key.decoding.family().algorithms().contains(&header.alg)
        };
        // All that it may be signed by must be of the key's family, so this is the one that it is.
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let mut why = InvalidCredential::Unknown;
        for key in keys.iter().filter(is_meant) {
            match decode::<Claims>(token, &key.decoding, &validation) {
                Ok(token) => return self.credential(&token.claims),
                Err(error) if *error.kind() == ErrorKind::ExpiredSignature => why = InvalidCredential::Expired,
                Err(error) => debug!(error = %Causes(&error), "a JWT was refused"),
            }
        }
        Err(why)
    }

    fn credential(&self, claims: &Claims) -> Result<Credential, InvalidCredential> {
        let is_name =
            (1..=MAX_SUBJECT).contains(&claims.sub.len()) && claims.sub.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_name {
            return Err(InvalidCredential::Unknown);
        }
        let lasts = Duration::try_from_secs_f64(claims.exp).unwrap_or(Duration::MAX);
        let lasts = lasts.saturating_add(Duration::from_secs(self.validation.leeway));
        Ok(Credential { principal: Principal::jwt(&claims.sub), expires: UNIX_EPOCH.checked_add(lasts) })
    }
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
