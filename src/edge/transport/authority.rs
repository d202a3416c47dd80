use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{greeting::PREFACE, hpack::Rewriter, peer_conduct::PeerConduct};
use crate::edge::cut::Cut;

const HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// The largest frame that a peer may send, and is sent.
const MAX_FRAME: usize = 16 << 10;
/// How much is read at a time.
const READ: usize = 16 << 10;

/// A connection over a Unix socket, whose `:authority` is replaced by `localhost`. It has no use there, and h2 accepts
/// none of what clients send: the path of the socket, percent-encoded or bare, or nothing.
#[derive(Debug)]
pub(super) struct AnyAuthority<IO> {
    io: IO,
    rewriter: Rewriter,
    /// The largest list of headers that h2 accepts.
    max_size: usize,
    conduct: Arc<PeerConduct>,
    /// The bytes of a frame of headers that is not complete yet.
    input: Vec<u8>,
    /// The bytes that h2 may read, of which it has read `taken`.
    output: Vec<u8>,
    taken: usize,
    /// How many of the next bytes are passed on as they are.
    through: usize,
    /// The block of headers that is not complete yet.
    block: Option<Block>,
}

#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    flags: u8,
    bytes: Vec<u8>,
    frames: usize,
}

impl<IO> AnyAuthority<IO> {
    /// Wraps a connection, its preface included, on which lists of headers may have `max_size` bytes.
    pub(super) fn new(io: IO, max_size: u32, conduct: Arc<PeerConduct>) -> Self {
        Self {
            io,
            rewriter: Rewriter::new(),
            max_size: usize::try_from(max_size).unwrap_or(usize::MAX),
            conduct,
            input: Vec::new(),
            output: Vec::new(),
            taken: 0,
            through: PREFACE.len(),
            block: None,
        }
    }

    /// Moves bytes from the input to the output, as far as frames are complete.
    fn advance(&mut self) -> Result<(), Cut> {
        let input = std::mem::take(&mut self.input);
        let mut left = &input[..];
        loop {
            let (through, rest) = left.split_at(self.through.min(left.len()));
            self.output.extend_from_slice(through);
            self.through -= through.len();
            left = rest;
            let Some((header, rest)) = left.split_first_chunk::<HEADER>() else { break };
            let [a, b, c, kind, flags, stream @ ..] = *header;
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            // Between the frames of a block there may be no other (RFC 9113, section 6.10). h2 cannot see that, as it
            // reads the block after its last frame.
            if self.block.is_some() && kind != CONTINUATION {
                return Err(Cut::Protocol);
            }
            let is_of_block = kind == HEADERS || self.block.is_some();
            if !is_of_block || len > MAX_FRAME {
                self.through = HEADER + len;
                continue;
            }
            let Some((payload, rest)) = rest.split_at_checked(len) else { break };
            left = rest;
            self.add(stream, kind, flags, payload)?;
        }
        self.input = left.to_vec();
        Ok(())
    }

    /// Adds a frame to its block, and writes the block when it is complete.
    fn add(&mut self, stream: [u8; 4], kind: u8, flags: u8, payload: &[u8]) -> Result<(), Cut> {
        /// How many times as large as the list a block may be, by the padding of its frames and the coding of its
        /// strings.
        const MOST: usize = 2;
        let payload = if kind == HEADERS { unpadded(flags, payload).ok_or(Cut::Protocol)? } else { payload };
        let new = || Block { stream, flags, bytes: Vec::new(), frames: 0 };
        let block = self.block.get_or_insert_with(new);
        if block.stream != stream {
            return Err(Cut::Protocol);
        }
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        let most = MOST * self.max_size;
        if block.bytes.len() > most || block.frames > 8 + most / MAX_FRAME {
            return Err(Cut::Flood);
        }
        if flags & END_HEADERS != 0
            && let Some(block) = self.block.take()
        {
            let bytes = self.rewriter.rewrite(&block.bytes, self.max_size).map_err(|_malformed| Cut::Protocol)?;
            block.write(&bytes, &mut self.output);
        }
        Ok(())
    }
}

/// Returns the part of a HEADERS frame's payload that belongs to the block; none if its padding is longer than it.
fn unpadded(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    let (padding, payload) = match payload.split_first() {
        Some((padding, payload)) if flags & PADDED != 0 => (usize::from(*padding), payload),
        _ if flags & PADDED != 0 => return None,
        _ => (0, payload),
    };
    let payload = if flags & PRIORITY == 0 { payload } else { payload.get(5..)? };
    payload.get(..payload.len().checked_sub(padding)?)
}

impl Block {
    /// Writes the frames of this block, with these bytes in place of its own.
    fn write(&self, bytes: &[u8], to: &mut Vec<u8>) {
        let mut frames = bytes.chunks(MAX_FRAME).peekable();
        let mut kind = HEADERS;
        let mut flags = self.flags & END_STREAM;
        loop {
            let payload = frames.next().unwrap_or_default();
            if frames.peek().is_none() {
                flags |= END_HEADERS;
            }
            let [.., a, b, c] = payload.len().to_be_bytes();
            to.extend_from_slice(&[a, b, c, kind, flags]);
            to.extend_from_slice(&self.stream);
            to.extend_from_slice(payload);
            if flags & END_HEADERS != 0 {
                return;
            }
            (kind, flags) = (CONTINUATION, 0);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for AnyAuthority<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let ready = this.output.split_at(this.taken).1;
            if !ready.is_empty() {
                let part = ready.split_at(ready.len().min(to.remaining())).0;
                to.put_slice(part);
                this.taken += part.len();
                if this.taken == this.output.len() {
                    (this.output, this.taken) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            let mut buffer = [0; READ];
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.input.extend_from_slice(read.filled());
            if let Err(cut) = this.advance() {
                this.conduct.cut(cut);
                return Poll::Ready(Err(io::Error::other(cut.as_str())));
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Request, Response};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn wrapped<IO>(io: IO) -> AnyAuthority<IO> {
        AnyAuthority::new(io, 1 << 16, Arc::default())
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let [.., a, b, c] = payload.len().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, stream][..], payload].concat()
    }

    /// What is read of these bytes, which come in pieces of this size.
    async fn read(bytes: &[u8], size: usize) -> io::Result<Vec<u8>> {
        let (mut peer, io) = tokio::io::duplex(size);
        let bytes = [PREFACE, bytes].concat();
        let writing = async move {
            let _gone = peer.write_all(&bytes).await;
        };
        let reading = async {
            let mut read = Vec::new();
            wrapped(io).read_to_end(&mut read).await.map(|_| read)
        };
        let ((), read) = tokio::join!(writing, reading);
        Ok(read?.split_off(PREFACE.len()))
    }

    #[tokio::test]
    async fn blocks_are_written_anew_and_all_else_goes_through_in_whatever_pieces_it_comes() {
        let block = [&[0x83, 0x86, 0x41, 16][..], b"/run/gateway.soc", &[0, 1, b'a', 1, b'b']].concat();
        let (one, other) = block.split_at(9);
        let data = frame(0, END_STREAM, 1, &[7; 100]);
        let whole = frame(HEADERS, END_HEADERS, 1, &block);
        let padded = [&[2, 0, 0, 0, 0, 9][..], &block, &[0, 0]].concat();
        let padded = frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &padded);
        let split = [frame(HEADERS, 0, 1, one), frame(CONTINUATION, 0, 1, &[]), frame(CONTINUATION, 4, 1, other)];
        let expected = [&[0x83, 0x86, 1, 9][..], b"localhost", &[0, 1, b'a', 1, b'b']].concat();
        let expected = [frame(HEADERS, END_HEADERS, 1, &expected), data.clone()].concat();
        for sent in [whole, padded, split.concat()] {
            for size in [1, 7, 10_000] {
                let sent = [&sent[..], &data].concat();
                assert_eq!(read(&sent, size).await.unwrap(), expected);
            }
        }
    }

    #[tokio::test]
    async fn a_block_without_end_or_sense_ends_the_connection() {
        let endless = [frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[]).repeat(100)].concat();
        assert_eq!(read(&endless, 1000).await.unwrap_err().to_string(), "flood");
        let large = [frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[0x83; 16_000]).repeat(10)].concat();
        assert_eq!(read(&large, 1000).await.unwrap_err().to_string(), "flood");
        let interrupted = [frame(HEADERS, 0, 1, &[0x83]), frame(HEADERS, 4, 3, &[0x83])].concat();
        for wrong in [frame(HEADERS, 4, 1, &[0xff]), frame(HEADERS, 4 | PADDED, 1, &[9, 0x83]), interrupted] {
            assert_eq!(read(&wrong, 1000).await.unwrap_err().to_string(), "protocol");
        }
    }

    /// The headers that arrive of those that a client of h2's sends, request by request, over one connection.
    async fn received(sent: Vec<Vec<(HeaderName, HeaderValue)>>) -> Vec<(String, Vec<(HeaderName, HeaderValue)>)> {
        let (client, server) = tokio::io::duplex(1 << 16);
        let count = sent.len();
        let calling = async {
            let (mut client, connection) = h2::client::handshake(client).await.unwrap();
            let connection = tokio::spawn(connection);
            for (index, fields) in sent.into_iter().enumerate() {
                let mut request = Request::builder().uri(format!("http://authority-{index}/path"));
                request.headers_mut().unwrap().extend(fields);
                client = client.ready().await.unwrap();
                client.send_request(request.body(()).unwrap(), true).unwrap().0.await.unwrap();
            }
            drop(client);
            connection.await.unwrap().unwrap();
        };
        let serving = async {
            let mut received = Vec::new();
            let mut connection = h2::server::handshake(wrapped(server)).await.unwrap();
            while let Some(accepted) = connection.accept().await {
                let (request, mut answer) = accepted.unwrap();
                answer.send_response(Response::new(()), true).unwrap();
                let fields = request.headers().iter().map(|(name, value)| (name.clone(), value.clone()));
                received.push((request.uri().authority().unwrap().to_string(), fields.collect()));
            }
            received
        };
        let ((), received) = tokio::join!(calling, serving);
        assert_eq!(received.len(), count);
        received
    }

    /// A field of a block, or a new size of the table. Some fields refer to the table, whatever is there.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let first = prop::sample::select(vec![0x40u8, 0, 0x10]);
        prop_oneof![
            (1u8..=61).prop_map(|index| vec![0x80 | index]),
            (0xbeu8..0xc2).prop_map(|index| vec![index]),
            (first.clone(), "[ab]{1,2}|:authority", "[a-z]{0,9}").prop_map(move |(first, name, value)| [
                vec![first],
                text(&name),
                text(&value)
            ]
            .concat()),
            (first, 1u8..15, "[a-z]{0,9}")
                .prop_map(move |(first, name, value)| [vec![first | name], text(&value)].concat()),
            prop::sample::select(vec![vec![0x20], vec![0x3e], vec![0x3f, 0xe1, 0x1f]]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_a_client_sends_arrives_whatever_its_table_holds(
            sent in prop::collection::vec(
                prop::collection::btree_map("x-[a-e]{1,2}", "[ -~]{0,40}|v{1500}", 0..8), 1..12,
            ),
        ) {
            let field = |(name, value): (&String, &String)| {
                (name.parse::<HeaderName>().unwrap(), value.trim().parse::<HeaderValue>().unwrap())
            };
            let sent: Vec<Vec<_>> = sent.iter().map(|fields| fields.iter().map(field).collect()).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for ((authority, mut fields), mut sent) in runtime.block_on(received(sent.clone())).into_iter().zip(sent) {
                prop_assert_eq!(authority, "localhost");
                let by_name = |field: &(HeaderName, HeaderValue)| field.0.to_string();
                fields.sort_by_key(by_name);
                sent.sort_by_key(by_name);
                prop_assert_eq!(fields, sent);
            }
        }

        #[test]
        fn what_was_rewritten_stays_as_it_is(
            blocks in prop::collection::vec((prop::collection::vec(field(), 0..6), any::<bool>()), 1..5),
        ) {
            let frames = (1u8..).step_by(2).zip(blocks).flat_map(|(stream, (fields, is_split))| {
                let block = fields.concat();
                let (one, other) = block.split_at(if is_split { block.len() / 2 } else { block.len() });
                let end = if is_split { 0 } else { END_HEADERS };
                let rest = is_split.then(|| frame(CONTINUATION, END_HEADERS, stream, other));
                [frame(HEADERS, end, stream, one), rest.unwrap_or_default()]
            });
            let sent: Vec<u8> = frames.flatten().collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Ok(once) = runtime.block_on(read(&sent, 50)) {
                prop_assert_eq!(runtime.block_on(read(&once, 1000)).unwrap(), once);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), is_headers in any::<bool>()) {
            let bytes = if is_headers { frame(HEADERS, END_HEADERS, 1, &bytes) } else { bytes };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _outcome = runtime.block_on(read(&bytes, 100));
        }
    }
}
