//! Rules that settings of several components share, and the error that names a setting.
//!
//! Each component checks its own table of the configuration file (`Config::check`). It takes the table apart field by
//! field, so that a new setting does not compile unchecked. What concerns several tables at once is checked in
//! `config`.

use std::time::Duration;

/// The rule of a setting that is there, and empty.
pub(crate) const NOT_EMPTY: &str = "must not be empty";

/// The longest duration of a setting: clocks end somewhere beyond.
const LONGEST: Duration = Duration::from_hours(24 * 1000);

/// A setting that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {rule}", key.join("."))]
pub struct InvalidSetting {
    /// The tables of the setting and its name, from the outside in. Within a list a table is named by its index, from
    /// 0.
    pub key: Vec<String>,
    /// The rule, as the rest of a sentence that begins with the key.
    pub rule: String,
}

impl InvalidSetting {
    pub(crate) fn new(key: &str, rule: impl Into<String>) -> Self {
        Self { key: vec![key.to_owned()], rule: rule.into() }
    }

    /// Returns the error of a setting that stands in these tables, named from the outside in.
    pub(crate) fn within(mut self, tables: &[&str]) -> Self {
        self.key.splice(..0, tables.iter().map(|&table| table.to_owned()));
        self
    }
}

/// Checks that a setting keeps its rule.
pub(crate) fn require(is_kept: bool, key: &str, rule: &str) -> Result<(), InvalidSetting> {
    if is_kept { Ok(()) } else { Err(InvalidSetting::new(key, rule)) }
}

/// Checks that a number or a duration is more than 0.
pub(crate) fn positive<T: Copy + Default + PartialOrd>(key: &str, value: T) -> Result<(), InvalidSetting> {
    require(value > T::default(), key, "must be more than 0")
}

/// Checks that a duration, which may be 0, is none that a clock cannot take.
pub(crate) fn bounded(key: &str, duration: Duration) -> Result<(), InvalidSetting> {
    require(duration <= LONGEST, key, "must be at most 1000 days")
}

/// Checks that a duration is more than 0, and none that a clock cannot take.
pub(crate) fn positive_bounded(key: &str, duration: Duration) -> Result<(), InvalidSetting> {
    positive(key, duration)?;
    bounded(key, duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_setting_from_its_outermost_table_in() {
        let invalid = positive("max_calls", 0).unwrap_err().within(&["tokens", "1"]).within(&["auth"]);
        assert_eq!(invalid.to_string(), "auth.tokens.1.max_calls must be more than 0");
    }

    #[test]
    fn a_duration_is_none_that_a_clock_cannot_take() {
        let error = |checked: Result<(), InvalidSetting>| checked.err().map(|invalid| invalid.rule);
        assert_eq!(error(bounded("ttl", Duration::ZERO)), None);
        assert_eq!(error(positive_bounded("ttl", Duration::ZERO)).as_deref(), Some("must be more than 0"));
        for check in [bounded, positive_bounded] {
            assert_eq!(error(check("ttl", Duration::from_hours(24_000))), None);
            assert_eq!(error(check("ttl", Duration::MAX)).as_deref(), Some("must be at most 1000 days"));
        }
    }
}
