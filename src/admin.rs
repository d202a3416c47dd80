//! What those who look after a running gateway ask it, over HTTP at an address of its own: metrics, probes, how it is, and how it
//! is configured. Whoever asks over the network without a token is told no more than probes and Prometheus need.

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

/// Whoever connects to here must not take the file descriptors that callers need.
const MAX_CONNECTIONS: usize = 100;
/// How long a peer may take to ask, and to read the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where administrators ask; the `[admin]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address to bind.
    pub listen: SocketAddr,
    /// The SHA-256, in hexadecimal, of the token that opens all of it, to other machines too.
    pub token_sha256: Option<TokenHash>,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)), token_sha256: None }
    }
}

/// The gateway that is looked after.
pub trait Gateway: Debug + Send + Sync + 'static {
    /// All metrics, in Prometheus's text format.
    ///
    /// # Errors
    /// They cannot be written.
    fn metrics(&self) -> Result<String, BoxError>;

    /// Why it should be sent no calls, if it should not.
    fn unready(&self) -> Option<String>;

    /// How it is.
    fn status(&self) -> Status;

    /// Its configuration, in TOML, without secrets.
    ///
    /// # Errors
    /// It cannot be written.
    fn config(&self) -> Result<String, BoxError>;
}

/// A bound address.
#[derive(Debug)]
pub struct Admin {
    socket: TcpListener,
    addr: SocketAddr,
    access: Access,
}

/// Why the address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {0} for administrators")]
pub struct BindError(SocketAddr, #[source] io::Error);

impl Config {
    /// Binds the address.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(self) -> Result<Admin, BindError> {
        let failed = |error| BindError(self.listen, error);
        let socket = TcpListener::bind(self.listen).await.map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        Ok(Admin { socket, addr, access: Access::new(addr, self.token_sha256) })
    }
}

impl Admin {
    /// The address that is bound, with the port that was chosen.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until it is dropped.
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
        let (mut connections, mut oldest) = (JoinSet::new(), VecDeque::new());
        loop {
            let (stream, _) = accept("admin", || self.socket.accept()).await;
            while connections.try_join_next().is_some() {}
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
            // How it ends is its peer's affair.
            oldest.push_back(connections.spawn(async { drop(time::timeout(ANSWER_TIMEOUT, connection).await) }));
            // Whoever opens many and asks nothing is in no probe's way.
            oldest.retain(|connection: &AbortHandle| !connection.is_finished());
            if oldest.len() > MAX_CONNECTIONS
                && let Some(connection) = oldest.pop_front()
            {
                connection.abort();
            }
        }
    }
}

type Shared = State<Arc<dyn Gateway>>;

async fn metrics(State(gateway): Shared) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    told(gateway.metrics().map(|metrics| (kind, metrics)))
}

async fn readyz(State(gateway): Shared) -> (StatusCode, String) {
    match gateway.unready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn html(State(gateway): Shared) -> Html<String> {
    Html(page(&gateway.status()))
}

/// A page for people, and JSON for all others.
async fn status(State(gateway): Shared, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let status = gateway.status();
    if accept.contains("text/html") { Html(page(&status)).into_response() } else { Json(status).into_response() }
}

async fn config(State(gateway): Shared) -> Response {
    told(gateway.config())
}

/// What is told, or that it cannot be.
fn told(what: Result<impl IntoResponse, BoxError>) -> Response {
    what.map_or_else(
        |error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        IntoResponse::into_response,
    )
}

/// Nothing of it is kept by a browser, shown within another page, or loads anything.
async fn private(mut answer: Response) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    answer
}
