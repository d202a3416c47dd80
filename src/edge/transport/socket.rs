//! A connection's socket, which sends all that one poll of the connection writes together: HTTP/2 writes frame by
//! frame, and a packet for each frame costs more than all else about a connection.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use hyper_util::server::graceful::GracefulConnection;
use pin_project_lite::pin_project;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A socket that holds back what is written to it until the poll of [`Corked`] ends.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    stream: Arc<Stream>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// None on a Unix socket, whose peers have no address.
    peer: Option<SocketAddr>,
    is_corked: AtomicBool,
    has_received: AtomicBool,
}

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pin_project! {
    /// The future of a connection, whose socket sends what a poll wrote when that poll ends.
    #[derive(Debug)]
    pub(super) struct Corked<C> {
        #[pin]
        connection: C,
        socket: Socket,
    }
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        let peer = match &stream {
            Stream::Tcp(stream) => stream.peer_addr().ok(),
            Stream::Unix(_) => None,
        };
        let state = State { peer, is_corked: AtomicBool::new(false), has_received: AtomicBool::new(false) };
        Self { stream: Arc::new(stream), state: Arc::new(state) }
    }

    /// Returns whether this is a Unix socket.
    pub(super) fn is_unix(&self) -> bool {
        matches!(&*self.stream, Stream::Unix(_))
    }

    /// Returns the address of the peer, for log lines.
    pub(super) fn peer(&self) -> String {
        self.state.peer.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string())
    }

    /// Returns whether the peer has sent anything.
    pub(super) fn has_received(&self) -> bool {
        self.state.has_received.load(Relaxed)
    }

    /// Returns a future of this connection that sends what each of its polls wrote together.
    pub(super) fn corked<C>(&self, connection: C) -> Corked<C> {
        Corked { connection, socket: self.clone() }
    }

    /// Corks the socket or uncorks it. Systems other than Linux send every write at once.
    fn cork(&self, is_corked: bool) {
        if self.state.is_corked.swap(is_corked, Relaxed) != is_corked {
            self.stream.cork(is_corked);
        }
    }

    /// Writes once the socket takes something.
    fn poll_write_by(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&Stream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.cork(true);
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl Stream {
    #[cfg(target_os = "linux")]
    fn cork(&self, is_corked: bool) {
        if let Self::Tcp(stream) = self {
            let _impossible = SockRef::from(stream).set_tcp_cork(is_corked);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn cork(&self, _: bool) {}

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    fn try_read(&self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(to),
            Self::Unix(stream) => stream.try_read(to),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(parts),
            Self::Unix(stream) => stream.try_write_vectored(parts),
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        }
    }
}

impl<C: GracefulConnection> Corked<C> {
    /// Sends the peer away: the connection ends when its calls have.
    pub(super) fn graceful_shutdown(self: Pin<&mut Self>) {
        self.project().connection.graceful_shutdown();
    }
}

impl<C: Future> Future for Corked<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.project();
        let outcome = this.connection.poll(cx);
        this.socket.cork(false);
        outcome
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(to.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    let read = outcome?;
                    to.advance(read);
                    if read > 0 && !self.has_received() {
                        self.state.has_received.store(true, Relaxed);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.stream.shutdown() {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            outcome => outcome,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(Stream::Tcp(listener.accept().await.unwrap().0)), peer)
    }

    #[cfg(target_os = "linux")]
    fn is_corked(socket: &Socket) -> bool {
        let Stream::Tcp(stream) = &*socket.stream else { return false };
        SockRef::from(stream).tcp_cork().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_a_poll_writes_is_held_back_until_it_ends() {
        let (socket, mut peer) = pair().await;
        let mut writing = socket.clone();
        let seen = socket.clone();
        let poll = socket.corked(async move {
            assert!(!is_corked(&seen), "a poll that writes nothing costs nothing");
            writing.write_all(b"one ").await.unwrap();
            assert_eq!(writing.write_vectored(&[IoSlice::new(b"two")]).await.unwrap(), 3);
            assert!(is_corked(&seen));
        });
        poll.await;
        assert!(!is_corked(&socket));
        let mut received = [0; 7];
        peer.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"one two");
    }

    #[tokio::test]
    async fn more_than_the_socket_takes_at_once_arrives_whole_and_the_end_is_told() {
        let (socket, mut peer) = pair().await;
        let mut writing = socket.clone();
        let sent: Vec<u8> = (0..8 << 20).map(|index: u32| index.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let writes = tokio::spawn(socket.corked(async move {
            writing.write_all(&sent).await.unwrap();
            writing.shutdown().await.unwrap();
        }));
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        writes.await.unwrap();
        assert!(received == expected);
        peer.write_all(b"back").await.unwrap();
        drop(peer);
        let mut back = String::new();
        socket.clone().read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "back");
    }
}
