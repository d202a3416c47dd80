use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, rt::Executor, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tower::{Service, ServiceExt as _};
use tracing::{debug, info};

use super::{
    Config,
    credential::Credential,
    frames::Frames,
    metrics::Metrics,
    socket::Socket,
    stage::{Stage, Stages},
    tls::{self, Tls},
};
use crate::model::Causes;

/// By how much the age of connections varies, so that those which came together do not leave together.
const AGE_JITTER: f64 = 0.1;

/// Runs the calls of connections, which go on a moment longer than those.
#[derive(Debug, Clone)]
pub(super) struct Streams(pub(super) TaskTracker);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Connections<S> {
    pub(super) http: Builder<Streams>,
    pub(super) service: S,
    pub(super) tls: Option<Tls>,
    pub(super) config: Config,
    pub(super) stages: Stages,
    pub(super) metrics: Metrics,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

impl<S, B> Connections<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = bytes::Bytes, Error = Status> + Send + 'static,
{
    /// Serves a connection to its end.
    pub(super) async fn serve(self: Arc<Self>, socket: Socket) {
        let Some(tls) = &self.tls else {
            return self.speak(socket.clone(), &socket, None).await;
        };
        let accepted = socket.turns(tls.acceptor().accept(socket.clone()));
        let handshake = time::timeout(self.config.handshake_timeout, accepted);
        tokio::select! {
            outcome = handshake => match outcome {
                Ok(Ok(io)) => {
                    let peer = tls::peer(io.get_ref().1);
                    self.speak(io, &socket, peer).await;
                }
                Ok(Err(error)) => {
                    self.metrics.failed_handshake();
                    info!(error = %Causes(&error), "a TLS handshake failed");
                }
                Err(_too_late) => {
                    self.metrics.failed_handshake();
                    debug!("TLS handshake took too long");
                }
            },
            () = self.stages.reached(Stage::GoingAway) => {}
        }
    }

    /// How long a connection is used: no longer than what it proves.
    fn age(&self, peer: Option<&Credential>) -> Duration {
        let age = self.config.max_connection_age.mul_f64(1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0));
        let expires = peer.and_then(|peer| peer.expires);
        let left = expires.map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
        left.map_or(age, |left| left.min(age))
    }

    /// Speaks HTTP/2 until the peer leaves, is shown out, or is told to go elsewhere and has had the time to.
    async fn speak<IO>(&self, io: IO, socket: &Socket, peer: Option<Credential>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Config { request_timeout, max_concurrent_streams, max_connection_age_grace, .. } = self.config;
        let age = self.age(peer.as_ref());
        let service = self.service.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            service.clone().oneshot(request)
        });
        let io = Frames::new(io, request_timeout, max_concurrent_streams);
        let has_greeted = io.has_greeted();
        let connection = self.http.serve_connection(TokioIo::new(io), service);
        let mut connection = Box::pin(socket.turns(connection));
        let (outcome, grace) = tokio::select! {
            outcome = &mut connection => (Some(outcome), Duration::MAX),
            () = time::sleep(age) => {
                self.metrics.drained("age");
                (None, max_connection_age_grace)
            }
            () = self.stages.reached(Stage::GoingAway) => {
                self.metrics.drained("stop");
                (None, Duration::MAX)
            }
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            // There is nothing to finish.
            None if !has_greeted.load(Relaxed) => return,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    outcome = &mut connection => outcome,
                    () = time::sleep(grace) => return,
                    () = self.stages.reached(Stage::CutOff) => return,
                }
            }
        };
        if let Err(error) = outcome {
            debug!(error = %Causes(&error), "connection ended");
        }
    }
}
