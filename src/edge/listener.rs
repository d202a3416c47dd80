use std::{fs, io, os::unix::fs::FileTypeExt as _, path::Path, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, UnixListener},
    time,
};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tower::Service;
use tracing::warn;

use super::{
    Address, Config,
    connection::{Connections, LogLimiters},
    log_limiter::LogLimiter,
    metrics::Metrics,
    socket::{Socket, Stream},
    stage::{Stage, Stages},
    tls::Tls,
    watched::FileError,
};
use crate::display::ErrorChain;

/// How long to wait after the system could not accept: out of file descriptors, say.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long calls that were cut off may take to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A bound address with an accept loop of our own: tonic's waits for idle peers without bound when it stops, and spins
/// when the process is out of file descriptors.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    addr: Address,
    tls: Option<Tls>,
    config: Config,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address could not be bound.
    #[error("could not listen on {0}")]
    Bind(Address, #[source] io::Error),
    /// The files for TLS cannot be used.
    #[error("cannot load the TLS files")]
    Tls(#[from] FileError),
}

impl Config {
    /// Reads the files that TLS needs, without use for them.
    ///
    /// # Errors
    /// [`ListenError::Tls`].
    pub async fn check_files(&self) -> Result<(), ListenError> {
        self.load_tls().await.map(drop)
    }

    async fn load_tls(&self) -> Result<Option<Tls>, ListenError> {
        match self.tls.clone() {
            Some(tls) => Ok(Some(tls.load(self.reload_interval).await?)),
            None => Ok(None),
        }
    }

    /// Binds the address, and reads the files that TLS needs.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(self) -> Result<Listener, ListenError> {
        let tls = self.load_tls().await?;
        let failed = |error| ListenError::Bind(self.listen.clone(), error);
        let (socket, addr) = match &self.listen {
            Address::Tcp(addr) => {
                let socket = TcpListener::bind(addr).await.map_err(failed)?;
                let addr = Address::Tcp(socket.local_addr().map_err(failed)?);
                (Bound::Tcp(socket), addr)
            }
            Address::Unix(path) => (Bound::Unix(bind_unix(path).map_err(failed)?), self.listen.clone()),
        };
        Ok(Listener { socket, addr, tls, config: self })
    }
}

/// Binds a path. A socket that nobody listens at any more is what an earlier process left behind.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_left_behind = || {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        is_socket && std::os::unix::net::UnixStream::connect(path).is_err()
    };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind() => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        outcome => outcome,
    }
}

impl Listener {
    /// The address that is bound, with the port that was chosen.
    pub fn addr(&self) -> &Address {
        &self.addr
    }

    /// Serves HTTP/2 until the stage is no longer serving, then drains: goes on for `drain_delay` while balancers look
    /// elsewhere; takes no connection any more, and tells peers to go away; when three quarters of `drain_timeout` are over,
    /// ends the calls that are left; at its end cuts off what is left.
    pub async fn serve<S, B>(self, service: S, stages: Stages, metrics: Metrics)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body<Data = bytes::Bytes, Error = Status> + Send + 'static,
    {
        let Self { socket, addr, tls, config } = self;
        let (drain_delay, drain_timeout) = (config.drain_delay, config.drain_timeout);
        let (tasks, calls) = (TaskTracker::new(), TaskTracker::new());
        let (max, keepalive) = (config.max_connections, config.keepalive_interval);
        let connections = Arc::new(Connections {
            calls: calls.clone(),
            service,
            tls,
            config,
            stages: stages.clone(),
            metrics: metrics.clone(),
            log_limiters: LogLimiters::default(),
        });
        let turned_away = LogLimiter::default();
        let accepting = async {
            loop {
                let stream = socket.accept(keepalive).await;
                if tasks.len() < max {
                    let (accepted, connection) = (metrics.accepted(), Arc::clone(&connections));
                    tasks.spawn(async move {
                        connection.serve(Socket::new(stream)).await;
                        drop(accepted);
                    });
                    continue;
                }
                metrics.turned_away();
                if let Some(left_out) = turned_away.admit() {
                    warn!(max, left_out, "there are as many connections as may be: further ones are closed at once");
                }
            }
        };
        let leaving = async {
            stages.reached(Stage::NotServing).await;
            within(drain_delay, stages.reached(Stage::CutOff)).await;
        };
        tokio::select! {
            () = accepting => {}
            () = leaving => {}
        }
        if let Address::Unix(path) = &addr {
            // Before it is closed: a successor may be waiting for the path.
            let _gone = fs::remove_file(path);
        }
        drop(socket);
        tasks.close();
        stages.advance(Stage::GoingAway);
        let quarter = drain_timeout / 4;
        if !within(3 * quarter, tasks.wait()).await {
            warn!(connections = tasks.len(), "ending the calls that are left");
            stages.advance(Stage::Ending);
            if !within(quarter, tasks.wait()).await {
                warn!(connections = tasks.len(), "the drain took too long: cutting off what is left");
            }
        }
        stages.advance(Stage::CutOff);
        tasks.wait().await;
        // What is told of a call that was cut off is told by its own task.
        calls.close();
        within(LAST_WORDS, calls.wait()).await;
    }
}

/// Waits for no longer than that. Tells whether it was long enough.
async fn within(most: Duration, what: impl Future<Output = ()>) -> bool {
    time::timeout(most, what).await.is_ok()
}

impl Bound {
    /// Accepts a connection, at last. The system probes it, too, when it has been silent for so long.
    async fn accept(&self, keepalive: Duration) -> Stream {
        let mut is_failing = false;
        loop {
            let accepted = match self {
                Self::Tcp(socket) => socket.accept().await.map(|(stream, _)| {
                    // Small frames must not wait for the peer's delayed acknowledgement; a peer that is gone shows later.
                    let _gone = stream.set_nodelay(true);
                    let _gone = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(keepalive));
                    Stream::Tcp(stream)
                }),
                Self::Unix(socket) => socket.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => return stream,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(error = %ErrorChain(&error), "connections cannot be accepted");
                    }
                    time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_frames_do_not_wait_for_acknowledgements_and_silent_peers_are_probed() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = tokio::net::TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let Stream::Tcp(stream) = Bound::Tcp(socket).accept(Duration::from_mins(1)).await else {
            panic!("it came by TCP")
        };
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time().unwrap(), Duration::from_mins(1));
    }
}
