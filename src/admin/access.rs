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

/// Authorises requests for more than probes and metrics.
#[derive(Debug, Clone)]
pub(super) struct Access {
    is_loopback: bool,
    token: Option<TokenHash>,
    /// How many requests had no token or a wrong one.
    refused: Arc<AtomicU64>,
}

impl Access {
    pub(super) fn new(addr: SocketAddr, token: Option<TokenHash>) -> Self {
        Self { is_loopback: addr.ip().to_canonical().is_loopback(), token, refused: Arc::default() }
    }

    /// Returns whether the request is authorised. Without a configured token that is any request on loopback to an IP
    /// address or `localhost`: a web page could have its own name resolve to loopback (DNS rebinding).
    fn admits(&self, headers: &HeaderMap) -> bool {
        match &self.token {
            Some(token) => presented(headers).is_some_and(|presented| *token == TokenHash::of(&presented)),
            None => self.is_loopback && is_local(headers),
        }
    }
}

/// Passes an authorised request on, and rejects any other with the reason.
pub(super) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.admits(request.headers()) {
        return next.run(request).await;
    }
    if access.token.is_some() {
        let refused = access.refused.fetch_add(1, Relaxed) + 1;
        // Logged at powers of two, so that guesses do not fill the log.
        if refused.is_power_of_two() {
            warn!(refused, "rejected requests for the status or the configuration without the token of [admin]");
        }
        // A browser asks for a password, which is the token.
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"ssm-gateway\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "the token of [admin] is required\n").into_response();
    }
    let why = if access.is_loopback {
        "the host must be an IP address or localhost: any other name may be a web page's that resolves to loopback\n"
    } else {
        "off loopback this requires a token: set token_sha256 in [admin]\n"
    };
    (StatusCode::FORBIDDEN, why).into_response()
}

/// Returns the bearer token of a request, or its password.
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
