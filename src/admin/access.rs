use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tracing::warn;

use crate::access::TokenHash;

/// Who may see more than probes and metrics.
#[derive(Debug, Clone)]
pub(super) struct Access {
    is_loopback: bool,
    token: Option<TokenHash>,
    /// How many requests had a wrong token, or none.
    refused: Arc<AtomicU64>,
}

impl Access {
    pub(super) fn new(addr: SocketAddr, token: Option<TokenHash>) -> Self {
        Self { is_loopback: addr.ip().to_canonical().is_loopback(), token, refused: Arc::default() }
    }

    /// Without a token, only those on this machine, and no web page that has its name lead here.
    fn admits(&self, headers: &HeaderMap) -> bool {
        match &self.token {
            Some(token) => presented(headers).is_some_and(|presented| *token == TokenHash::of(&presented)),
            None => self.is_loopback && is_local(headers),
        }
    }
}

/// Lets a request in, or tells what it lacks.
pub(super) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.admits(request.headers()) {
        return next.run(request).await;
    }
    if access.token.is_some() {
        let refused = access.refused.fetch_add(1, Relaxed) + 1;
        // Whoever guesses fills no log.
        if refused.is_power_of_two() {
            warn!(refused, "somebody asked for the status or the configuration without the token of [admin]");
        }
        // A browser asks for a password, which is the token.
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"ssm-gateway\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "the token of [admin] is needed\n").into_response();
    }
    let why = if access.is_loopback {
        "ask by an IP address or as localhost: this is told to no page that has its own name lead here\n"
    } else {
        "this is told where [admin] listens on loopback alone, or has a token_sha256\n"
    };
    (StatusCode::FORBIDDEN, why).into_response()
}

/// The token of a bearer, or a password.
fn presented(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| password.to_owned())
}

fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let host = host.host().trim_matches(['[', ']']);
        host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
    })
}
