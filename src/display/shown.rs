use std::fmt;

/// The longest text that is shown.
const MAX: usize = 64;

/// The value of a setting, as a message displays it: quoted if it is short and plain, else not at all. A long or odd
/// value where a name belongs may be a key or a token in the wrong place, and a URL with a user may have a password.
///
/// ```
/// use ssm_gateway::display::Shown;
///
/// assert_eq!(Shown("us-east-1a").to_string(), "\"us-east-1a\"");
/// assert_eq!(Shown("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=").to_string(), "(a value that is not shown)");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl Shown<'_> {
    /// Returns whether the value is shown.
    #[must_use]
    pub fn is_shown(self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_.:/*@".contains(&byte);
        let has_user = self.0.split_once('@').is_some_and(|(before, _)| before.contains(':'));
        self.0.len() <= MAX && self.0.bytes().all(is_plain) && !has_user && !is_random(self.0)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_shown() { write!(f, "{:?}", self.0) } else { f.write_str("(a value that is not shown)") }
    }
}

/// Returns whether a text has a long run of letters, digits and slashes that mixes letters and digits, as keys and
/// tokens do, and names do not.
pub(super) fn is_random(text: &str) -> bool {
    let is_mixed = |run: &str| {
        let has = |is: fn(&u8) -> bool| run.bytes().any(|byte| is(&byte));
        run.len() >= 20 && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
    };
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '/').any(is_mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_what_may_be_a_secret_is_not() {
        for name in ["eu-west-1", "arn:aws:iam::123456789012:role/SsmReader", "spiffe://acme/*", "", "two words"] {
            assert_eq!(Shown(name).to_string(), format!("{name:?}"));
        }
        let key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let long = "a".repeat(65);
        let url = "https://me:password@acme";
        for secret in ["AKIAIOSFODNN7EXAMPLE1", "eyJhbGciOiJFUzI1NiJ9.e30.x", "a\nb", "p@ss=word", url, key, &long] {
            assert!(!Shown(secret).to_string().contains(secret), "{secret}");
        }
    }
}
