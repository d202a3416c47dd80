use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// Whom no proof can name, as it has no prefix.
const ANONYMOUS_NAME: &str = "anonymous";

/// Who calls, as it was proven: `spiffe://DOMAIN/PATH` or `dns:NAME` by a client certificate, `jwt:SUBJECT` or `token:NAME` by
/// a bearer token, or else `anonymous`. What comes before the colon tells how, so that no proof passes for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

impl Principal {
    /// A caller who proved nothing, where that is allowed.
    #[must_use]
    pub fn anonymous() -> Self {
        static ANONYMOUS: LazyLock<Principal> = LazyLock::new(|| Principal(Arc::from(ANONYMOUS_NAME)));
        ANONYMOUS.clone()
    }

    /// The holder of a certificate for this SPIFFE ID, a URI `spiffe://…`.
    #[must_use]
    pub fn spiffe(id: &str) -> Self {
        Self(Arc::from(id))
    }

    /// The holder of a certificate for this DNS name.
    #[must_use]
    pub fn dns(name: &str) -> Self {
        Self(format!("dns:{}", name.to_ascii_lowercase()).into())
    }

    /// The subject of a JWT.
    #[must_use]
    pub fn jwt(subject: &str) -> Self {
        Self(format!("jwt:{subject}").into())
    }

    /// The holder of the static token of this name.
    #[must_use]
    pub fn token(name: &str) -> Self {
        Self(format!("token:{name}").into())
    }

    /// The text that policies match.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the caller proved nothing.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        &*self.0 == ANONYMOUS_NAME
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
