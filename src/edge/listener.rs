use std::{io, net::SocketAddr, time::Duration};

use futures_util::future;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::Service;
use tracing::{debug, warn};

use super::{Config, socket::Socket};

/// How long to wait after the system could not accept: out of file descriptors, say.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A bound address with an accept loop of our own: tonic's waits for idle peers without bound when it stops, and spins
/// when the process is out of file descriptors.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    config: Config,
}

impl Config {
    /// Binds the address.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(self) -> io::Result<Listener> {
        let socket = TcpListener::bind(self.listen).await?;
        Ok(Listener { addr: socket.local_addr()?, socket, config: self })
    }
}

impl Listener {
    /// The address that is bound, with the port that was chosen.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves HTTP/2 until `stop` is done; then tells peers to go away, and waits for the calls in flight no longer than
    /// the drain time-out. Calls that are still there then are cut off.
    pub async fn serve<S>(self, service: S, stop: impl Future<Output = ()>)
    where
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let http = self.http();
        let graceful = GracefulShutdown::new();
        let tasks = TaskTracker::new();
        let cut_off = CancellationToken::new();
        let mut stop = std::pin::pin!(stop);
        while let future::Either::Left((accepted, _)) =
            future::select(std::pin::pin!(self.accept()), stop.as_mut()).await
        {
            let Some(stream) = accepted else { continue };
            let service = TowerToHyperService::new(service.clone());
            let socket = Socket::new(stream);
            let connection = http.serve_connection(TokioIo::new(socket.clone()), service);
            let connection = socket.turns(graceful.watch(connection));
            let cut_off = cut_off.clone();
            tasks.spawn(async move {
                if let Some(Err(error)) = cut_off.run_until_cancelled(connection).await {
                    debug!(error = &error as &dyn std::error::Error, "connection ended");
                }
            });
        }
        drop(self.socket);
        tasks.close();
        let drained = future::join(graceful.shutdown(), tasks.wait());
        if time::timeout(self.config.drain_timeout, drained).await.is_err() {
            warn!(connections = tasks.len(), "the drain took too long: cutting off what is left");
        }
        cut_off.cancel();
        tasks.wait().await;
    }

    /// Accepts one connection; none after an error, having waited a moment.
    async fn accept(&self) -> Option<TcpStream> {
        match self.socket.accept().await {
            Ok((stream, _)) => {
                // Small frames must not wait for the peer's delayed acknowledgement; a peer that is gone shows later.
                let _gone = stream.set_nodelay(true);
                Some(stream)
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "could not accept a connection");
                time::sleep(ACCEPT_BACKOFF).await;
                None
            }
        }
    }

    fn http(&self) -> http2::Builder<TokioExecutor> {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(self.config.max_concurrent_streams)
            .max_header_list_size(self.config.max_header_list_size)
            .keep_alive_interval(self.config.keepalive_interval)
            .keep_alive_timeout(self.config.keepalive_timeout);
        http
    }
}
