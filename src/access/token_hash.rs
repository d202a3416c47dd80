use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The SHA-256 of a bearer token, which the configuration holds in place of the token.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash([u8; 32]);

/// A text that is not the SHA-256 of a token.
#[derive(Debug, thiserror::Error)]
#[error("a SHA-256 is 64 hexadecimal digits")]
pub struct InvalidTokenHash;

impl TokenHash {
    /// Returns the hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Returns the bytes of the hash.
    #[must_use]
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

/// Compares in constant time, so that the time reveals nothing.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl TryFrom<String> for TokenHash {
    type Error = InvalidTokenHash;

    fn try_from(text: String) -> Result<Self, InvalidTokenHash> {
        let digit = |letter: char| letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digits: Option<Vec<u8>> = text.chars().map(digit).collect();
        let (bytes, []) = digits.as_deref().ok_or(InvalidTokenHash)?.as_chunks::<2>() else {
            return Err(InvalidTokenHash);
        };
        let bytes: Vec<u8> = bytes.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().map(Self).map_err(|_wrong_length| InvalidTokenHash)
    }
}

/// Hides the hash: a token that is not random could be guessed from it.
impl From<TokenHash> for String {
    fn from(_: TokenHash) -> Self {
        "…".to_owned()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_sha256sum_prints_and_is_not_shown() {
        let text = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(TokenHash::try_from(text.to_owned()).unwrap(), TokenHash::of("secret"));
        assert_eq!(TokenHash::try_from(text.to_uppercase()).unwrap(), TokenHash::of("secret"));
        for wrong in ["", "2bb8", &text[1..], &text.replace('2', "x"), &format!("{text}00")] {
            assert!(TokenHash::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(format!("{:?}", TokenHash::of("secret")), "TokenHash(…)");
        assert_eq!(serde_json::to_string(&TokenHash::of("secret")).unwrap(), "\"…\"");
    }
}
