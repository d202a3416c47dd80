use std::{error::Error, fmt, iter};

/// An error and what it comes of, as one sentence: lines of the log in JSON would have the error alone.
#[derive(Debug, Clone, Copy)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        for cause in iter::successors(self.0.source(), |&error| error.source()) {
            let cause = cause.to_string();
            if !told.contains(&cause) {
                write!(f, ": {cause}")?;
                told = cause;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] io::Error);

    #[test]
    fn every_cause_is_told_once() {
        let error = Outer("no page", io::Error::other("connection refused"));
        assert_eq!(Causes(&error).to_string(), "no page: connection refused");
        let error = Outer("no page: connection refused", io::Error::other("connection refused"));
        assert_eq!(Causes(&error).to_string(), "no page: connection refused");
    }
}
