use std::{convert::Infallible, error::Error as _, fmt::Display, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_util::{either::Either, task::TaskTracker};
use tower::{BoxError, Service, ServiceExt as _};
use tracing::{debug, info, warn};

use super::{
    authority::AnyAuthority,
    calls::Calls,
    config::Config,
    frames::{Frames, max_unseen_resets},
    greeting::{self, Greeting},
    peer_conduct::PeerConduct,
    socket::{Corked, Socket, Stream},
    tls::Tls,
};
use crate::{
    clock,
    display::ErrorChain,
    edge::{
        credential::Credential,
        cut::Cut,
        log_limiter::LogLimiter,
        metrics::Metrics,
        peer_timeout::within_peer_timeout,
        stage::{Stage, Stages},
    },
};

/// How much the maximum age of connections varies, so that connections which were opened together are not closed
/// together.
const AGE_JITTER: f64 = 0.1;
/// How often h2 may reset streams for mistakes of the peer over the whole life of a connection: hyper's own default. A
/// frame of data for a call that was refused and forgotten counts as such a mistake, too.
const MAX_ERROR_RESETS: usize = 1024;
/// How many times as large as the configured limit of headers h2's limit is. Between them a call is refused in gRPC,
/// beyond both with status 431.
const HEADER_LIST_FACTOR: u32 = 8;
/// How many bytes a peer may send ahead of the reader of one call, and of all calls together: requests are small.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Connections<S> {
    pub(super) tasks: TaskTracker,
    /// The tasks of calls, which outlive their connections for a moment.
    pub(super) calls: TaskTracker,
    pub(super) service: S,
    pub(super) tls: Option<Tls>,
    pub(super) config: Config,
    pub(super) stages: Stages,
    pub(super) metrics: Metrics,
    pub(super) log_limiters: LogLimiters,
}

/// The limits of log lines that strangers can cause, by kind.
#[derive(Debug, Default)]
pub(super) struct LogLimiters {
    handshakes: LogLimiter,
    certificates: LogLimiter,
    attacks: LogLimiter,
    others: LogLimiter,
    turned_away: LogLimiter,
}

impl<S, B> Connections<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = bytes::Bytes, Error = Infallible> + Send + 'static,
{
    /// Serves a connection in a task of its own, or closes it at once where there are as many as may be.
    pub(super) fn admit(self: &Arc<Self>, stream: Stream) {
        let max = self.config.max_connections;
        if self.tasks.len() < max {
            let accepted = self.metrics.accepted();
            let this = Arc::clone(self);
            self.tasks.spawn(async move {
                this.serve(Socket::new(stream)).await;
                drop(accepted);
            });
            return;
        }
        self.metrics.turned_away();
        if let Some(left_out) = self.log_limiters.turned_away.admit() {
            warn!(max, left_out, "there are as many connections as may be: further ones are closed at once");
        }
    }

    /// Serves a connection to its end.
    async fn serve(self: Arc<Self>, socket: Socket) {
        let Some(tls) = &self.tls else {
            return self.speak(socket.clone(), &socket, None).await;
        };
        let accepted = socket.corked(tls.acceptor().accept(socket.clone()));
        let handshake = within_peer_timeout(self.config.handshake_timeout, accepted);
        tokio::select! {
            outcome = handshake => match outcome {
                Some(Ok(io)) => {
                    let peer = Credential::of_peer(io.get_ref().1, &self.log_limiters.certificates);
                    self.speak(io, &socket, peer).await;
                }
                Some(Err(error)) => self.failed_handshake(&socket, &ErrorChain(&error)),
                None => self.failed_handshake(&socket, &"it took too long"),
            },
            () = self.stages.reached(Stage::GoingAway) => {}
        }
    }

    /// Counts and logs a handshake that failed. A connection on which nothing was sent is a probe of the port, and is
    /// not counted.
    fn failed_handshake(&self, socket: &Socket, error: &dyn Display) {
        let peer = socket.peer();
        if !socket.has_received() {
            return debug!(peer, "a connection ended without a word");
        }
        self.metrics.failed_handshake();
        if let Some(left_out) = self.log_limiters.handshakes.admit() {
            info!(peer, %error, left_out, "a TLS handshake failed");
        }
    }

    /// Counts and logs a connection that was cut.
    fn cut(&self, socket: &Socket, why: Cut) {
        self.metrics.cut(why);
        let peer = socket.peer();
        let reason = why.as_str();
        if matches!(why, Cut::Slow | Cut::NotHttp2) {
            if let Some(left_out) = self.log_limiters.others.admit() {
                info!(peer, reason, left_out, "a connection was cut");
            }
        } else if let Some(left_out) = self.log_limiters.attacks.admit() {
            warn!(peer, reason, left_out, "a connection was cut");
        }
    }

    /// Returns how long a connection is used: no longer than its certificate is valid.
    fn age(&self, peer: Option<&Credential>) -> Duration {
        let age = self.config.max_connection_age.mul_f64(1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0));
        let expires = peer.and_then(|peer| peer.expires);
        let left = expires.map(|expires| expires.duration_since(clock::wall()).unwrap_or_default());
        left.map_or(age, |left| left.min(age))
    }

    /// Serves a peer that speaks HTTP/2, and refuses any other.
    async fn speak<IO>(&self, mut io: IO, socket: &Socket, peer: Option<Credential>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let greeting = socket.corked(within_peer_timeout(self.config.request_timeout, greeting::read(&mut io)));
        let greeting = tokio::select! {
            greeting = greeting => greeting,
            () = self.stages.reached(Stage::GoingAway) => return,
        };
        match greeting {
            Some(Ok(Greeting::Http2)) => self.serve_http2(io, socket, peer).await,
            Some(Ok(Greeting::Http1)) => {
                socket.corked(greeting::refuse_http1(&mut io)).await;
                self.cut(socket, Cut::NotHttp2);
            }
            Some(Ok(Greeting::Other)) => self.cut(socket, Cut::NotHttp2),
            None if socket.has_received() => self.cut(socket, Cut::Slow),
            Some(Ok(Greeting::Silence) | Err(_)) | None => debug!(peer = socket.peer(), "a connection said nothing"),
        }
    }

    /// Serves HTTP/2 until the peer leaves, the connection is cut, or its grace period is over.
    async fn serve_http2<IO>(&self, io: IO, socket: &Socket, peer: Option<Credential>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Config { request_timeout, max_concurrent_streams, .. } = self.config;
        let age = self.age(peer.as_ref());
        let conduct = Arc::new(PeerConduct::default());
        let calls = Calls::new(&self.calls, &conduct);
        let http = http(&self.config, calls.clone());
        let service = self.service.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let end = calls.begin();
            request.extensions_mut().insert(Arc::clone(&end));
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            let answer = service.clone().oneshot(request);
            async move {
                let answer = answer.await;
                end.answered();
                answer
            }
        });
        let io = Frames::new(io, request_timeout, max_concurrent_streams, Arc::clone(&conduct));
        let io = if socket.is_unix() {
            Either::Left(AnyAuthority::new(io, max_header_list_size(&self.config), Arc::clone(&conduct)))
        } else {
            Either::Right(io)
        };
        let connection = http.serve_connection(TokioIo::new(io), service);
        let connection = Box::pin(socket.corked(connection));
        let Some(Err(error)) = self.run(connection, age).await else { return };
        if let Some(why) = conduct.why_cut().or_else(|| fault(&error)) {
            self.cut(socket, why);
        } else {
            debug!(error = %ErrorChain(&error), "connection ended");
        }
    }

    /// Runs a connection until it ends. Sends the peer away when the connection is old enough or the gateway stops, and
    /// returns none if the connection outlasts the time that it has from then on.
    async fn run<C: GracefulConnection>(
        &self,
        mut connection: Pin<Box<Corked<C>>>,
        age: Duration,
    ) -> Option<C::Output> {
        let grace = tokio::select! {
            outcome = &mut connection => return Some(outcome),
            () = time::sleep(age) => {
                self.metrics.drained("age");
                self.config.max_connection_age_grace
            }
            () = self.stages.reached(Stage::GoingAway) => {
                self.metrics.drained("stop");
                Duration::MAX
            }
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            outcome = &mut connection => Some(outcome),
            () = time::sleep(grace) => None,
            () = self.stages.reached(Stage::CutOff) => None,
        }
    }
}

/// Returns why h2 cut a connection, if the peer was the cause.
fn fault(error: &hyper::Error) -> Option<Cut> {
    let error: &h2::Error = error.source()?.downcast_ref()?;
    (error.is_go_away() && error.is_library()).then(|| match error.reason() {
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Cut::Flood,
        _ => Cut::Protocol,
    })
}

fn max_header_list_size(config: &Config) -> u32 {
    config.max_header_list_size.saturating_mul(HEADER_LIST_FACTOR)
}

fn http(config: &Config, calls: Calls) -> http2::Builder<Calls> {
    let max_calls = config.max_concurrent_streams;
    let mut http = http2::Builder::new(calls);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(max_calls)
        .max_header_list_size(max_header_list_size(config))
        .max_pending_accept_reset_streams(usize::try_from(max_unseen_resets(max_calls)).unwrap_or(usize::MAX))
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    http
}
