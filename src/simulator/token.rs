//! The simulator's NextToken: as large, opaque and short-lived as AWS's, and with the characters `+`, `/` and `=`.

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::clock::now;

/// The size before base64: AWS's tokens are about 1.2 KB of base64.
const PADDED: usize = 900;
const DIGEST: usize = 32;

/// The position at which a walk continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    /// The number of preceding nodes in the filtered fleet.
    pub(super) offset: usize,
    /// The number of preceding pages.
    pub(super) page: u32,
    /// The fleet of the walk, by its seed.
    fleet: u64,
    issued_at_millis: u64,
}

impl Token {
    pub(super) fn new(fleet: u64, offset: usize, page: u32) -> Self {
        Self { offset, page, fleet, issued_at_millis: now_millis() }
    }

    pub(super) fn write(self) -> String {
        let mut bytes = serde_json::to_vec(&self).unwrap_or_default();
        let mut padding = fastrand::Rng::with_seed(self.issued_at_millis ^ self.offset as u64);
        bytes.push(b'\n');
        bytes.extend(std::iter::repeat_with(|| padding.u8(..)).take(PADDED));
        bytes.truncate(PADDED);
        let digest = Sha256::digest(&bytes);
        BASE64_STANDARD.encode([digest.as_slice(), &bytes].concat())
    }

    /// Parses a token that [`Token::write`] wrote for the same fleet, at most `lifetime` ago.
    pub(super) fn read(text: &str, fleet: u64, lifetime: Duration) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text).ok()?;
        let (digest, bytes) = bytes.split_at_checked(DIGEST)?;
        if digest != Sha256::digest(bytes).as_slice() {
            return None;
        }
        let token: Self = serde_json::from_slice(bytes.split(|&byte| byte == b'\n').next()?).ok()?;
        let age = now_millis().saturating_sub(token.issued_at_millis);
        (token.fleet == fleet && u128::from(age) < lifetime.as_millis()).then_some(token)
    }
}

fn now_millis() -> u64 {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_until_it_expires() {
        let token = Token::new(7, 150, 3);
        let text = token.write();
        assert!(text.len() > 1200, "as large as AWS's");
        assert_eq!(Token::read(&text, 7, Duration::from_mins(1)), Some(token));
        assert_eq!(Token::read(&text, 8, Duration::from_mins(1)), None, "of another account");
        assert_eq!(Token::read(&text, 7, Duration::ZERO), None);
        assert_eq!(Token::read(&text[4..], 7, Duration::from_mins(1)), None);
    }
}
