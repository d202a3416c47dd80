/// Why a PEM file cannot be used. The reasons are fixed texts, so that no message contains a byte of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPem {
    /// A line of the file is invalid.
    #[error("line {line}: {reason}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The error, and what to do.
        reason: &'static str,
    },
    /// The file as a whole is invalid.
    #[error("{0}")]
    File(&'static str),
}

/// Which of two files cannot be used, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPair {
    /// The file of the certificates.
    #[error(transparent)]
    Cert(InvalidPem),
    /// The file of the private key.
    #[error(transparent)]
    Key(InvalidPem),
}
