use std::{error::Error, fmt, iter};

/// An error and its causes in one line: `cannot read the page: connection refused`.
///
/// Some errors repeat their cause in their own message. Such a cause is left out, if it stands there whole, between
/// colons.
///
/// ```
/// use std::io;
/// use ssm_gateway::display::ErrorChain;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("cannot read the page")]
/// struct ReadError(#[source] io::Error);
///
/// let error = ReadError(io::Error::other("connection refused"));
/// assert_eq!(ErrorChain(&error).to_string(), "cannot read the page: connection refused");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        for cause in iter::successors(self.0.source(), |&error| error.source()) {
            let cause = cause.to_string();
            if !repeats(&last, &cause) {
                write!(f, ": {cause}")?;
                last = cause;
            }
        }
        Ok(())
    }
}

/// Returns whether a message has its cause in it, as one of the parts between its colons.
fn repeats(message: &str, cause: &str) -> bool {
    cause.is_empty() || format!(": {message}: ").contains(&format!(": {cause}: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    /// A chain of errors with these messages, the outermost first.
    fn displayed(messages: &[&'static str]) -> String {
        let chain = messages.iter().rev().fold(None, |cause, &message| Some(Box::new(Link(message, cause))));
        ErrorChain(&*chain.unwrap()).to_string()
    }

    #[test]
    fn every_cause_is_displayed_once() {
        assert_eq!(displayed(&["no page"]), "no page");
        assert_eq!(displayed(&["no page", "connection refused"]), "no page: connection refused");
        assert_eq!(displayed(&["no page: connection refused", "connection refused"]), "no page: connection refused");
        assert_eq!(displayed(&["no page: refused: by a rule", "refused", "by a rule"]), "no page: refused: by a rule");
        assert_eq!(displayed(&["no page: refused", "refused", "by a rule"]), "no page: refused: by a rule");
    }

    #[test]
    fn a_cause_whose_words_only_occur_in_the_message_is_displayed() {
        assert_eq!(displayed(&["page 17 is gone", "page 1"]), "page 17 is gone: page 1");
        assert_eq!(displayed(&["cannot read: a timeout", "timeout"]), "cannot read: a timeout: timeout");
    }
}
