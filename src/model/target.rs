use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// The name of a target: a named place to ask, which is a region and credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(Arc<str>);

/// Why a text is no target's name.
#[derive(Debug, thiserror::Error)]
#[error("a target's name consists of letters, digits, '-', '_' and '.', 64 at most, not {0:?}")]
pub struct InvalidTargetName(String);

impl TargetName {
    /// The target that is asked where none is named.
    #[must_use]
    pub fn default_target() -> Self {
        static DEFAULT: LazyLock<TargetName> = LazyLock::new(|| TargetName::from("default"));
        DEFAULT.clone()
    }

    /// The name as callers write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TargetName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

/// Accepts the names that a configuration may use, none of which could be a glob or a list of names.
impl TryFrom<String> for TargetName {
    type Error = InvalidTargetName;

    fn try_from(name: String) -> Result<Self, InvalidTargetName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain);
        if is_name { Ok(Self(name.into())) } else { Err(InvalidTargetName(name)) }
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
