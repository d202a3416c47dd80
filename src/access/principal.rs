use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// The principal of callers who proved nothing: no proof can name it, as it has no prefix.
const ANONYMOUS_NAME: &str = "anonymous";
/// The longest SPIFFE ID, and the longest trust domain in one, in bytes.
const MAX_SPIFFE_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;

/// An authenticated caller: `spiffe://DOMAIN/PATH` or `dns:NAME` by a client certificate, `jwt:SUBJECT` or `token:NAME`
/// by a bearer token, or else `anonymous`. The prefix names the kind of proof, so that no proof passes for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Returns the principal of callers who proved nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        static ANONYMOUS: LazyLock<Principal> = LazyLock::new(|| Principal(Arc::from(ANONYMOUS_NAME)));
        ANONYMOUS.clone()
    }

    /// Returns the holder of a certificate for this SPIFFE ID, `spiffe://DOMAIN/PATH`; none if the ID breaks the
    /// grammar of the SPIFFE-ID standard. Otherwise two spellings of one ID could be two principals, or match a rule
    /// for another.
    ///
    /// ```
    /// use ssm_gateway::access::Principal;
    ///
    /// assert!(Principal::spiffe("spiffe://acme.internal/ns/orders").is_some());
    /// assert!(Principal::spiffe("spiffe://acme.internal/ns/../admin").is_none());
    /// ```
    #[must_use]
    pub fn spiffe(id: &str) -> Option<Self> {
        let (domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_domain = (1..=MAX_TRUST_DOMAIN).contains(&domain.len())
            && domain.bytes().all(|byte| is_plain(byte) && !byte.is_ascii_uppercase());
        let is_segment = |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(is_plain);
        let is_valid = id.len() <= MAX_SPIFFE_ID && is_domain && path.split('/').all(is_segment);
        is_valid.then(|| Self(Arc::from(id)))
    }

    /// Returns whether this is a SPIFFE ID or, where it is a glob, whether one can begin with what stands before its
    /// first `*`.
    ///
    /// ```
    /// use ssm_gateway::access::Principal;
    ///
    /// assert!(Principal::is_spiffe_pattern("spiffe://acme.internal/ns/*"));
    /// assert!(!Principal::is_spiffe_pattern("spiffe://ACME/*"));
    /// ```
    #[must_use]
    pub fn is_spiffe_pattern(pattern: &str) -> bool {
        let Some((before, _)) = pattern.split_once('*') else { return Self::spiffe(pattern).is_some() };
        // The shortest rests, by where the text breaks off.
        ["", "a", "/a", "a/a", "/a/a", "//a/a"].iter().any(|rest| Self::spiffe(&format!("{before}{rest}")).is_some())
    }

    /// Returns the holder of a certificate for this DNS name.
    #[must_use]
    pub fn dns(name: &str) -> Self {
        Self(format!("dns:{}", name.to_ascii_lowercase()).into())
    }

    /// Returns the subject of a JWT.
    #[must_use]
    pub fn jwt(subject: &str) -> Self {
        Self(format!("jwt:{subject}").into())
    }

    /// Returns the holder of the static token of this name.
    #[must_use]
    pub fn token(name: &str) -> Self {
        Self(format!("token:{name}").into())
    }

    /// Returns the text that rules are matched against.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the caller proved nothing.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_is_one_by_its_standard_or_none() {
        for id in ["spiffe://acme/orders", "spiffe://a-b_c.1/ns/Prod/sa/x.y-z_1", "spiffe://10.0.0.1/..."] {
            assert_eq!(Principal::spiffe(id).map(|principal| principal.to_string()).as_deref(), Some(id));
        }
        let long = format!("spiffe://acme/{}", "a".repeat(2048));
        let long_domain = format!("spiffe://{}/a", "a".repeat(256));
        for id in [
            "spiffe://",
            "spiffe:///orders",
            "spiffe://acme",
            "spiffe://acme/",
            "spiffe://acme/orders/",
            "spiffe://acme//orders",
            "spiffe://acme/../x",
            "spiffe://acme/./x",
            "spiffe://acme/x?y",
            "spiffe://acme/x#y",
            "spiffe://acme/%78",
            "spiffe://acme/x*",
            "spiffe://acme/é",
            "spiffe://acme/a b",
            "spiffe://acme:443/x",
            "spiffe://me@acme/x",
            "spiffe://ACME/x",
            "SPIFFE://acme/x",
            "https://acme/x",
            &long,
            &long_domain,
        ] {
            assert_eq!(Principal::spiffe(id), None, "{id}");
            assert!(id.contains('*') || !Principal::is_spiffe_pattern(id), "{id}");
        }
    }

    #[test]
    fn a_glob_that_no_spiffe_id_can_begin_like_is_no_pattern() {
        let full_domain = format!("spiffe://{}*", "a".repeat(255));
        for glob in [
            "spiffe:*",
            "spiffe:/*",
            "spiffe://*",
            "spiffe://ac*me/x",
            "spiffe://acme*",
            "spiffe://acme/*",
            "spiffe://acme/Ns*",
            "spiffe://acme/.*",
            &full_domain,
        ] {
            assert!(Principal::is_spiffe_pattern(glob), "{glob}");
        }
        for glob in [
            "spiffe:x*",
            "spiffe:///*",
            "spiffe://ACME/*",
            "spiffe://Ac*",
            "spiffe://acme//*",
            "spiffe://acme/../*",
            "spiffe://acme:1*",
            "spiffe://acme/x?*",
        ] {
            assert!(!Principal::is_spiffe_pattern(glob), "{glob}");
        }
    }
}
