use std::{convert::Infallible, fs, io, os::unix::fs::FileTypeExt as _, path::Path, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::{
    address::Address,
    config::Config,
    connection::{Connections, LogLimiters},
    drain::Drain,
    socket::Stream,
    tls::Tls,
};
use crate::{
    accept::accept,
    edge::{metrics::Metrics, stage::Stages, watched::FileError},
};

/// A bound address with an accept loop of the gateway's own: tonic's waits for idle peers without bound when it stops,
/// and spins when the process is out of file descriptors.
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

    /// Serves HTTP/2 until the gateway is not serving any more, then drains: accepts connections for another
    /// `drain_delay`, while balancers look elsewhere; then sends all peers away; ends the calls that are left after
    /// three quarters of `drain_timeout`; cuts off what is left at its end.
    pub async fn serve<S, B>(self, service: S, stages: Stages, metrics: Metrics)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body<Data = bytes::Bytes, Error = Infallible> + Send + 'static,
    {
        let Self { socket, addr, tls, config } = self;
        let drain = Drain {
            delay: config.drain_delay,
            timeout: config.drain_timeout,
            stages: stages.clone(),
            connections: TaskTracker::new(),
            calls: TaskTracker::new(),
        };
        let keepalive = config.keepalive_interval;
        let connections = Arc::new(Connections {
            tasks: drain.connections.clone(),
            calls: drain.calls.clone(),
            service,
            tls,
            config,
            stages,
            metrics,
            log_limiters: LogLimiters::default(),
        });
        let accepting = async {
            loop {
                connections.admit(accept("edge", || socket.accept(keepalive)).await);
            }
        };
        tokio::select! {
            () = accepting => {}
            () = drain.begun() => {}
        }
        if let Address::Unix(path) = &addr {
            // Before it is closed: a successor may be waiting for the path.
            let _gone = fs::remove_file(path);
        }
        drop(socket);
        drain.finish().await;
    }
}

impl Bound {
    /// Accepts a connection, which the system probes, too, when the connection has been silent for `keepalive`.
    async fn accept(&self, keepalive: Duration) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                // Small frames must not wait for the peer's delayed acknowledgement; a peer that is gone shows later.
                let _gone = stream.set_nodelay(true);
                let _gone = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(keepalive));
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(socket) => socket.accept().await.map(|(stream, _)| Stream::Unix(stream)),
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
        let Stream::Tcp(stream) = Bound::Tcp(socket).accept(Duration::from_mins(1)).await.unwrap() else {
            panic!("it came by TCP")
        };
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time().unwrap(), Duration::from_mins(1));
    }
}
