//! The admin endpoint, plain HTTP at an address of its own: metrics, probes, status and configuration. Off loopback, a
//! request without a token gets only metrics and probes.

mod access;
mod page;
mod status;

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time,
};
use tower::BoxError;

pub use self::status::{Caller, Calls, Failure, Listing, Memory, Reads, Status, Target};
use self::{access::Access, page::page};
use crate::{accept::accept, access::TokenHash};

/// The most connections, so that the admin endpoint leaves file descriptors for callers.
const MAX_CONNECTIONS: usize = 100;
/// The longest time for a request, and for a whole connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The admin endpoint; the `[admin]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address to bind.
    pub listen: SocketAddr,
    /// The SHA-256, in hexadecimal, of the token that grants access to everything, from other machines too.
    pub token_sha256: Option<TokenHash>,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)), token_sha256: None }
    }
}

/// The port to the gateway that the admin endpoint reports on.
pub trait Gateway: Debug + Send + Sync + 'static {
    /// Returns all metrics, in Prometheus's text format.
    ///
    /// # Errors
    /// If the metrics cannot be encoded.
    fn metrics(&self) -> Result<String, BoxError>;

    /// Returns why the gateway is not ready for calls, or `None` if it is.
    fn unready(&self) -> Option<String>;

    /// Returns the current status.
    fn status(&self) -> Status;

    /// Returns the configuration, in TOML, without secrets.
    ///
    /// # Errors
    /// If the configuration cannot be encoded.
    fn config(&self) -> Result<String, BoxError>;
}

/// A bound admin endpoint.
#[derive(Debug)]
pub struct Admin {
    socket: TcpListener,
    addr: SocketAddr,
    access: Access,
}

/// The address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {0} for the admin endpoint")]
pub struct BindError(SocketAddr, #[source] io::Error);

impl Config {
    /// Binds the address.
    ///
    /// # Errors
    /// [`BindError`], if the address is in use or the system refuses it.
    pub async fn bind(self) -> Result<Admin, BindError> {
        let failed = |error| BindError(self.listen, error);
        let socket = TcpListener::bind(self.listen).await.map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        Ok(Admin { socket, addr, access: Access::new(addr, self.token_sha256) })
    }
}

impl Admin {
    /// Returns the bound address, with the port that the system selected.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers requests until the future is dropped.
    pub async fn serve(self, gateway: Arc<dyn Gateway>) {
        let guarded = Router::new()
            .route("/", get(html))
            .route("/status", get(status))
            .route("/config", get(config))
            .route_layer(middleware::from_fn_with_state(self.access, access::check))
            .layer(middleware::map_response(private));
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .merge(guarded)
            .with_state(gateway);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).keep_alive(false);
        let mut connections = JoinSet::new();
        let mut oldest = VecDeque::new();
        loop {
            let (stream, _) = accept("admin", || self.socket.accept()).await;
            while connections.try_join_next().is_some() {}
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
            // An error of the connection concerns only its peer.
            oldest.push_back(connections.spawn(async { drop(time::timeout(ANSWER_TIMEOUT, connection).await) }));
            // The oldest connection is closed, so that idle connections cannot block probes.
            oldest.retain(|connection: &AbortHandle| !connection.is_finished());
            if oldest.len() > MAX_CONNECTIONS
                && let Some(connection) = oldest.pop_front()
            {
                connection.abort();
            }
        }
    }
}

type GatewayState = State<Arc<dyn Gateway>>;

async fn metrics(State(gateway): GatewayState) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    or_error(gateway.metrics().map(|metrics| (kind, metrics)))
}

async fn readyz(State(gateway): GatewayState) -> (StatusCode, String) {
    match gateway.unready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn html(State(gateway): GatewayState) -> Html<String> {
    Html(page(&gateway.status()))
}

/// Returns HTML if the client accepts it, otherwise JSON.
async fn status(State(gateway): GatewayState, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let status = gateway.status();
    if accept.contains("text/html") { Html(page(&status)).into_response() } else { Json(status).into_response() }
}

async fn config(State(gateway): GatewayState) -> Response {
    or_error(gateway.config())
}

/// Converts a result into a response, an error into status 500.
fn or_error(result: Result<impl IntoResponse, BoxError>) -> Response {
    result.map_or_else(
        |error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        IntoResponse::into_response,
    )
}

/// Forbids browsers to cache an answer, to embed it in another page, or to load anything for it.
async fn private(mut answer: Response) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    answer
}
