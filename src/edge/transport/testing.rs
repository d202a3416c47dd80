//! The doors below HTTP/2 that strangers' bytes come in by, for the fuzzer and the replay of its seeds.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task,
};

use super::{authority::AnyAuthority, frames::Frames, peer_conduct::PeerConduct};
use crate::edge::cut::Cut;

/// How many bytes a peer can have sent that were not read: more than a piece has.
const CAPACITY: usize = 1 << 20;
/// How long a peer may take for a frame: longer than any test takes.
const TIMEOUT: Duration = Duration::from_hours(1);
/// How many calls a peer may have at a time.
const MAX_CALLS: u32 = 100;

/// What came of a connection that was watched for what its peer begins and does not finish.
#[derive(Debug)]
pub struct Watched {
    /// What HTTP/2 read, the preface included.
    pub read: Vec<u8>,
    /// Why the connection was cut, if it was.
    pub cut: Option<&'static str>,
    /// Whether the peer has begun something that is not finished.
    pub is_waiting: bool,
}

/// Watches a connection whose peer sends these bytes behind the preface, in pieces of this size, each read before the
/// next is sent.
pub async fn frames(sent: &[u8], size: usize) -> Watched {
    let (peer, io) = tokio::io::duplex(CAPACITY);
    let conduct = Arc::new(PeerConduct::default());
    let mut frames = Frames::new(io, TIMEOUT, MAX_CALLS, Arc::clone(&conduct));
    let read = read_all(&mut frames, peer, sent.chunks(size)).await;
    Watched { read, cut: conduct.why_cut().map(Cut::as_str), is_waiting: frames.is_waiting() }
}

/// Returns what HTTP/2 reads of a connection on which `:authority` is rewritten and lists of headers may have
/// `max_size` bytes. Its peer sends these bytes, in pieces of this size, each read before the next is sent.
///
/// # Errors
/// The reason, if the connection was cut.
pub async fn any_authority(sent: &[u8], size: usize, max_size: u32) -> Result<Vec<u8>, &'static str> {
    let (peer, io) = tokio::io::duplex(CAPACITY);
    let conduct = Arc::new(PeerConduct::default());
    let mut connection = AnyAuthority::new(io, max_size, Arc::clone(&conduct));
    let read = read_all(&mut connection, peer, sent.chunks(size)).await;
    conduct.why_cut().map_or(Ok(read), |cut| Err(cut.as_str()))
}

async fn read_all<'a>(
    connection: &mut (impl AsyncRead + Unpin),
    mut peer: DuplexStream,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let reading = async {
        let mut read = Vec::new();
        for piece in std::iter::once(&[][..]).chain(pieces) {
            let _always_fits = peer.write_all(piece).await;
            while let Some(Ok(1..)) = connection.read_buf(&mut read).now_or_never() {}
        }
        read
    };
    // Within tokio's budget of a task a connection that has bytes seems to have none.
    task::unconstrained(reading).await
}
