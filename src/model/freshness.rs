use std::time::Duration;

/// How old an answer a caller accepts; what is absent is the target's configuration to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    /// The age at which an answer is no longer fresh; zero asks AWS now.
    pub max_age: Option<Duration>,
    /// How far past that age an answer may still be given, marked stale.
    pub max_stale: Option<Duration>,
}
