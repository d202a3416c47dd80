use std::{fmt, sync::Arc};

/// The name of a target: a named place to ask, which is a region and credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName(Arc<str>);

impl TargetName {
    /// The target that is asked where none is named.
    #[must_use]
    pub fn default_target() -> Self {
        Self::from("default")
    }

    /// The name as callers write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether `pattern`, a name or a glob in which `*` stands for any characters, means this target.
    #[must_use]
    pub fn matches(&self, pattern: &str) -> bool {
        fn matches(pattern: &str, name: &str) -> bool {
            match pattern.split_once('*') {
                None => pattern == name,
                Some((prefix, rest)) => name.strip_prefix(prefix).is_some_and(|tail| {
                    tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| matches(rest, &tail[at..]))
                }),
            }
        }
        matches(pattern, &self.0)
    }
}

impl From<&str> for TargetName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_a_name_or_a_glob() {
        let target = TargetName::default_target();
        for pattern in ["default", "*", "def*", "*ault", "d*f*t", "**"] {
            assert!(target.matches(pattern), "{pattern}");
        }
        for pattern in ["", "Default", "defaul", "*x*", "default*x"] {
            assert!(!target.matches(pattern), "{pattern}");
        }
    }
}
