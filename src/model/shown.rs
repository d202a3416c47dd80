use std::fmt;

/// The longest value that is shown, in bytes, and the longest word in one, of letters, digits and slashes.
const MAX_VALUE: usize = 64;
const MAX_WORD: usize = 19;

/// A setting's value as a message shows it: in quotes if it is short and plain. Anything else is not shown: a secret may stand at
/// the wrong setting, and the message goes to logs. Nor is a URL with a user shown. Long words with digits, as AWS's keys are, are none that
/// anybody chose.
///
/// ```
/// use ssm_gateway::model::Shown;
///
/// assert_eq!(Shown("eu-west-1a").to_string(), "\"eu-west-1a\"");
/// assert!(!Shown("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").to_string().contains("EXAMPLE"));
/// ```
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl Shown<'_> {
    /// Returns whether the value is short and plain.
    #[must_use]
    pub fn is_shown(self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/*@".contains(&byte);
        let mut words = self.0.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '/');
        let is_chosen = |word: &str| word.len() <= MAX_WORD || !word.contains(|letter: char| letter.is_ascii_digit());
        let has_user = self.0.split_once('@').is_some_and(|(before, _)| before.contains(':'));
        self.0.len() <= MAX_VALUE && !has_user && self.0.bytes().all(is_plain) && words.all(is_chosen)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_shown() { write!(f, "{:?}", self.0) } else { f.write_str("(a value that is not shown)") }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_secret_is_not_shown() {
        for value in
            ["", "prod-*", "arn:aws:iam::111122223333:role/Reader", "spiffe://ACME/ns/prod/sa/orders", "team@gateway"]
        {
            assert_eq!(Shown(value).to_string(), format!("{value:?}"));
        }
        let long = "a-".repeat(33);
        for secret in [
            "correct horse",
            "p=w",
            "pässword",
            "a\nb",
            "https://me:pw@acme",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            &long,
        ] {
            assert_eq!(format!("{0} {0:?}", Shown(secret)), "(a value that is not shown) (a value that is not shown)");
        }
    }
}
