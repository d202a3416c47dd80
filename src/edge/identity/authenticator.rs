use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::jwt::{self, Jwt};
use crate::{
    access::{Principal, TokenHash},
    clock,
    edge::{
        credential::{Credential, InvalidCredential},
        watched::FileError,
    },
    setting::{InvalidSetting, require},
};

/// How callers can prove who they are, beside client certificates; the `[auth]` table of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether callers who prove nothing are admitted, as `anonymous`. They are anyway where nobody can prove anything
    /// and nobody on another machine can connect.
    pub allow_anonymous: bool,
    /// Whether bearer tokens may be sent over connections that others could read.
    pub allow_plaintext_tokens: bool,
    /// The bearer tokens that the gateway knows.
    pub tokens: Vec<Token>,
    /// The issuer whose JWTs are accepted as bearer tokens, too.
    pub jwt: Option<jwt::Config>,
}

/// A bearer token, an `[[auth.tokens]]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The name of its holder, the principal `token:NAME`.
    pub name: String,
    /// The SHA-256 of the token, in hexadecimal. If the token is random, the file is no secret.
    pub sha256: TokenHash,
}

/// Authenticates callers: by a static token, a JWT or the client certificate of their connection.
#[derive(Debug)]
pub struct Authenticator {
    tokens: Vec<(TokenHash, Principal)>,
    jwt: Option<Jwt>,
    admits_anonymous: bool,
}

impl Config {
    /// Checks every setting by itself. Whether anonymous callers and plaintext tokens are safe depends on the address,
    /// too.
    ///
    /// # Errors
    /// The first setting that names no caller, or that names several by one token.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let Self { allow_anonymous: _, allow_plaintext_tokens: _, tokens, jwt } = self;
        for (index, token) in tokens.iter().enumerate() {
            let others = tokens.iter().skip(index + 1);
            token.check(others).map_err(|invalid| invalid.within(&["tokens", &index.to_string()]))?;
        }
        jwt.as_ref().map_or(Ok(()), |jwt| jwt.check().map_err(|invalid| invalid.within(&["jwt"])))
    }

    /// Returns whether callers can prove who they are by a bearer token.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty() || self.jwt.is_some()
    }

    /// Loads the keys of the JWT issuer, and again whenever their file has changed, for which it looks `every` so
    /// often.
    /// `has_certificates` says whether connections can prove callers by client certificates.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be read or holds no usable key.
    pub async fn build(self, has_certificates: bool, every: Duration) -> Result<Authenticator, FileError> {
        let admits_anonymous = self.allow_anonymous || !(self.has_tokens() || has_certificates);
        let jwt = match self.jwt {
            Some(jwt) => Some(jwt.load(every).await?),
            None => None,
        };
        let tokens = self.tokens.into_iter().map(|token| (token.sha256, Principal::token(&token.name))).collect();
        Ok(Authenticator { tokens, jwt, admits_anonymous })
    }
}

impl Token {
    fn check<'a>(&self, mut others: impl Iterator<Item = &'a Self>) -> Result<(), InvalidSetting> {
        let Self { name, sha256 } = self;
        require(others.all(|other| other.sha256 != *sha256), "sha256", "is that of another token, too")?;
        require(name.bytes().all(|byte| byte.is_ascii_graphic()), "name", "must be visible ASCII")
    }
}

impl Authenticator {
    /// Returns the credential of a caller: its bearer token, or else the certificate of its connection, which many
    /// callers may share behind a proxy, or else none, where anonymous callers are admitted.
    ///
    /// # Errors
    /// [`InvalidCredential`] if the caller has no valid credential. A token that is not valid counts as such even where
    /// the certificate is.
    pub(in crate::edge) fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&Credential>,
    ) -> Result<Credential, InvalidCredential> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let credential = match (given.next(), given.next()) {
            (None, _) => {
                let peer = peer.cloned().or_else(|| self.admits_anonymous.then(Credential::anonymous));
                peer.ok_or(InvalidCredential::Missing)
            }
            (Some(given), None) => {
                bearer(given).map_err(InvalidCredential::Unknown).and_then(|token| self.bearer(token))
            }
            (Some(_), Some(_)) => Err(InvalidCredential::Unknown("the call has several `authorization` headers")),
        };
        let has_expired = |credential: &Credential| credential.expires.is_some_and(|at| at <= clock::wall());
        let credential = match credential {
            Ok(credential) if has_expired(&credential) => Err(InvalidCredential::Expired),
            credential => credential,
        };
        match credential {
            Err(InvalidCredential::Unknown(reason)) => debug!(reason, "a token was refused"),
            Err(InvalidCredential::Expired) => debug!(reason = "it has expired", "a credential was refused"),
            Err(InvalidCredential::Missing) | Ok(_) => {}
        }
        credential
    }

    fn bearer(&self, token: &str) -> Result<Credential, InvalidCredential> {
        let hash = TokenHash::of(token);
        let mut known = None;
        // Compares all tokens, each to its end, so that the time taken reveals nothing.
        for (expected, principal) in &self.tokens {
            if *expected == hash {
                known = Some(principal);
            }
        }
        match (known, &self.jwt) {
            (Some(principal), _) => Ok(Credential { principal: principal.clone(), expires: None }),
            (None, Some(jwt)) => jwt.verify(token, hash.bytes()),
            (None, None) => Err(InvalidCredential::Unknown("it is none of [[auth.tokens]]")),
        }
    }
}

/// Returns the token of an `authorization` header, whose scheme may be written in any case, or why there is none.
fn bearer(header: &HeaderValue) -> Result<&str, &'static str> {
    let header = header.to_str().map_err(|_not_ascii| "its `authorization` is not visible ASCII")?;
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
    token.ok_or("its `authorization` is not `Bearer`, a blank and a token")
}

#[cfg(test)]
mod tests {

    use super::*;

    async fn authenticator(allow_anonymous: bool, names: &[&str]) -> Authenticator {
        let token = |name: &&str| Token { name: (*name).to_owned(), sha256: TokenHash::of(&format!("{name}-secret")) };
        let config = Config { allow_anonymous, tokens: names.iter().map(token).collect(), ..Config::default() };
        config.build(false, Duration::from_secs(1)).await.unwrap()
    }

    fn principal(
        authenticator: &Authenticator,
        headers: &[&str],
        peer: Option<&Credential>,
    ) -> Result<String, InvalidCredential> {
        let headers = headers.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect();
        authenticator.authenticate(&headers, peer).map(|credential| credential.principal.to_string())
    }

    #[tokio::test]
    async fn a_bearer_token_authenticates_its_holder() {
        let known = authenticator(false, &["ci", "orders"]).await;
        assert_eq!(principal(&known, &["Bearer orders-secret"], None).unwrap(), "token:orders");
        assert_eq!(principal(&known, &["bearer ci-secret"], None).unwrap(), "token:ci");
        for unknown in
            [&["Bearer nobody"][..], &["ci-secret"], &["Basic ci-secret"], &["Bearer "], &["Bearer ci-secret"; 2]]
        {
            assert!(matches!(principal(&known, unknown, None), Err(InvalidCredential::Unknown(_))), "{unknown:?}");
        }
        assert_eq!(principal(&known, &[], None), Err(InvalidCredential::Missing));
    }

    #[tokio::test]
    async fn who_proves_nothing_is_anonymous_where_that_is_allowed_or_nobody_can_prove_anything() {
        assert_eq!(principal(&authenticator(true, &["ci"]).await, &[], None).unwrap(), "anonymous");
        assert_eq!(principal(&authenticator(false, &[]).await, &[], None).unwrap(), "anonymous");
        let wrong = principal(&authenticator(true, &["ci"]).await, &["Bearer wrong"], None);
        assert!(matches!(wrong, Err(InvalidCredential::Unknown(_))), "a wrong proof is not none");
    }

    #[tokio::test]
    async fn a_certificate_proves_a_caller_until_it_expires_and_a_token_counts_for_more() {
        let known = authenticator(false, &["ci"]).await;
        let expires = |expires| Credential { principal: Principal::dns("orders.internal"), expires: Some(expires) };
        let good = expires(clock::wall() + Duration::from_mins(1));
        assert_eq!(principal(&known, &[], Some(&good)).unwrap(), "dns:orders.internal");
        assert_eq!(principal(&known, &["Bearer ci-secret"], Some(&good)).unwrap(), "token:ci");
        assert_eq!(principal(&known, &[], Some(&expires(clock::wall()))), Err(InvalidCredential::Expired));
    }
}
