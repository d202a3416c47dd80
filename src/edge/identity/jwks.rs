use std::{ops::RangeBounds, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};
use tracing::{debug, warn};

use crate::edge::watched::FileError;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// The members of a public key that are strings, and those that are lists of strings, by RFC 7517 and RFC 7518.
const TEXTS: [&str; 11] = ["alg", "crv", "e", "kid", "kty", "n", "use", "x", "x5t", "x5t#S256", "y"];
const LISTS: [&str; 2] = ["key_ops", "x5c"];
/// The longest key ID that a message names, and how many skipped keys an error names.
const MAX_SHOWN_ID: usize = 64;
const REPORTED: usize = 5;
/// The shortest modulus of an RSA key that is used, in bytes.
const LEAST_MODULUS: usize = 256;

const BY_RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// One of an issuer's public keys.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// The algorithms that signatures by this key can have.
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// Why a key of a set is not used.
enum Skipped {
    /// The key is of an unknown kind, or for another use: section 5 of RFC 7517 demands that such keys are ignored.
    Foreign(&'static str),
    /// The key breaks RFC 7517.
    Invalid(String),
}

impl Key {
    /// Returns whether a token with this header can be signed by the key. Where the token or the key has no ID, the
    /// algorithm alone decides.
    pub(super) fn is_candidate(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let is_named = self.id.as_deref().zip(id).is_none_or(|(own, named)| own == named);
        is_named && self.algorithms.contains(&algorithm)
    }
}

/// Reads the keys of a JWKS that can check a signature by one of these algorithms. Logs the keys that are skipped.
///
/// # Errors
/// [`FileError::Content`] if the set has no such key. The error shows no value of the file: a set may hold private keys
/// by mistake.
pub(super) fn read(file: &Path, jwks: &[u8], allowed: &[Algorithm]) -> Result<Vec<Key>, FileError> {
    let wrong = |reason: String| FileError::Content { file: file.to_owned(), reason };
    let jwks = jwks.strip_prefix(BYTE_ORDER_MARK).unwrap_or(jwks);
    let set: Value = serde_json::from_slice(jwks)
        .map_err(|error| wrong(format!("it is no JSON: line {}, column {}", error.line(), error.column())))?;
    let set = set.get("keys").and_then(Value::as_array);
    let set = set.ok_or_else(|| wrong("it is no JWKS: an object with a list of `keys`".to_owned()))?;
    let mut keys = Vec::new();
    let mut skipped = Vec::new();
    for (index, jwk) in set.iter().enumerate() {
        match key(jwk, allowed) {
            Ok(key) => keys.push(key),
            Err(why) => skipped.push((name(index, jwk), why)),
        }
    }
    if keys.is_empty() {
        let reasons = skipped.iter().take(REPORTED).map(|(name, why)| format!("; {name}: {}", why.reason()));
        return Err(wrong(format!("it holds no key that can be used{}", reasons.collect::<String>())));
    }
    for (key, why) in &skipped {
        let file = file.display();
        let reason = why.reason();
        match why {
            Skipped::Foreign(_) => debug!(%file, key, reason, "a key of the JWKS is not used"),
            Skipped::Invalid(_) => warn!(%file, key, reason, "a key of the JWKS is skipped: it is invalid"),
        }
    }
    Ok(keys)
}

fn key(jwk: &Value, allowed: &[Algorithm]) -> Result<Key, Skipped> {
    let jwk = jwk.as_object().ok_or_else(|| invalid("it is no object"))?;
    check_types(jwk)?;
    if !matches!(text(jwk, "use"), None | Some("sig")) {
        return Err(Skipped::Foreign("it is not for signatures"));
    }
    let kind = text(jwk, "kty").ok_or_else(|| invalid("`kty` is missing"))?;
    let (algorithms, decoding) = match (kind, text(jwk, "crv")) {
        ("RSA", _) => {
            let modulus = bytes(jwk, "n", LEAST_MODULUS..)?;
            (&BY_RSA[..], DecodingKey::from_rsa_raw_components(&modulus, &bytes(jwk, "e", 1..)?))
        }
        ("EC", Some("P-256")) => (&[Algorithm::ES256][..], point(jwk, 32)?),
        ("EC", Some("P-384")) => (&[Algorithm::ES384][..], point(jwk, 48)?),
        ("OKP", Some("Ed25519")) => (&[Algorithm::EdDSA][..], DecodingKey::from_ed_der(&bytes(jwk, "x", 32..33)?)),
        ("EC" | "OKP", None) => return Err(invalid("`crv` is missing")),
        ("oct", _) => {
            return Err(Skipped::Foreign(
                "symmetric keys (kty oct) are not accepted: who can verify with one can also sign",
            ));
        }
        _ => return Err(Skipped::Foreign("its kind or curve is not known")),
    };
    let mut algorithms = algorithms.to_vec();
    if let Some(name) = text(jwk, "alg") {
        let own = algorithm(name).ok_or(Skipped::Foreign("its algorithm is not known"))?;
        if !algorithms.contains(&own) {
            return Err(invalid("`alg` is not one of its kind and curve"));
        }
        algorithms = vec![own];
    }
    algorithms.retain(|algorithm| allowed.contains(algorithm));
    if algorithms.is_empty() {
        return Err(Skipped::Foreign("auth.jwt.algorithms has none that it could sign by"));
    }
    Ok(Key { id: text(jwk, "kid").filter(|id| !id.is_empty()).map(str::to_owned), algorithms, decoding })
}

/// Returns the algorithm of this name. `EdDSA` means the curve of `Ed25519`, its newer name (RFC 9864): no other one is
/// known here.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}

fn check_types(jwk: &Map<String, Value>) -> Result<(), Skipped> {
    let is_text_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    // A member that is null is as good as absent: some issuers write all members that they know.
    let is_wrong = |member: &str, is_right: &dyn Fn(&Value) -> bool| {
        jwk.get(member).is_some_and(|value| !value.is_null() && !is_right(value))
    };
    if let Some(member) = TEXTS.iter().find(|member| is_wrong(member, &Value::is_string)) {
        return Err(Skipped::Invalid(format!("`{member}` is not a string")));
    }
    match LISTS.iter().find(|member| is_wrong(member, &is_text_list)) {
        Some(member) => Err(Skipped::Invalid(format!("`{member}` is not a list of strings"))),
        None => Ok(()),
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    jwk.get(member).and_then(Value::as_str)
}

fn bytes(jwk: &Map<String, Value>, member: &str, lengths: impl RangeBounds<usize>) -> Result<Vec<u8>, Skipped> {
    let text = text(jwk, member).ok_or_else(|| Skipped::Invalid(format!("`{member}` is missing")))?;
    let bytes = URL_SAFE_NO_PAD.decode(text);
    let bytes =
        bytes.map_err(|_damaged| Skipped::Invalid(format!("`{member}` is not in base64url without padding")))?;
    if lengths.contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(Skipped::Invalid(format!("`{member}` has a wrong length")))
    }
}

fn point(jwk: &Map<String, Value>, length: usize) -> Result<DecodingKey, Skipped> {
    let x = bytes(jwk, "x", length..=length)?;
    let y = bytes(jwk, "y", length..=length)?;
    // As SEC 1 writes a point that is not compressed.
    Ok(DecodingKey::from_ec_der(&[&[4][..], &x, &y].concat()))
}

/// Returns a key's place in the set, and its ID if that can be shown.
fn name(index: usize, jwk: &Value) -> String {
    let id = jwk.get("kid").and_then(Value::as_str);
    let id = id.filter(|id| id.len() <= MAX_SHOWN_ID && id.bytes().all(|byte| byte.is_ascii_graphic()));
    id.map_or_else(|| format!("keys[{index}]"), |id| format!("keys[{index}], kid {id}"))
}

fn invalid(reason: &str) -> Skipped {
    Skipped::Invalid(reason.to_owned())
}

impl Skipped {
    fn reason(&self) -> &str {
        match self {
            Self::Foreign(reason) => reason,
            Self::Invalid(reason) => reason,
        }
    }
}
