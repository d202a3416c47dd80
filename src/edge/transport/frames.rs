//! Watches the frames that a peer sends (RFC 9113, section 4) for those that the peer begins and does not finish, and
//! for calls that it gives up unseen.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{greeting::PREFACE, peer_conduct::PeerConduct};
use crate::edge::{cut::Cut, peer_timeout::PeerTimeout};

const HEADER: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u8 = 11;

/// A connection that fails when its peer takes too long for what it has begun: the settings, a frame, or the frames of
/// one block of headers. HTTP/2 libraries wait for the rest of these without bound, and pings do not detect such a
/// peer. Nor do the libraries mind calls that are given up again and again (CVE-2023-44487): [`PeerConduct`] judges
/// calls that a layer has seen, and this type limits how many others may be given up in a second. A connection that is
/// cut ends with GOAWAY.
#[derive(Debug)]
pub(super) struct Frames<IO> {
    io: IO,
    /// The rest of the preface, which was read before, and which HTTP/2 still has to read.
    preface: &'static [u8],
    unit: Unit,
    resets: Resets,
    conduct: Arc<PeerConduct>,
    timeout: Duration,
    peer_timeout: PeerTimeout,
    /// Whether the time-out is running: the peer has begun something that is not finished.
    is_waiting: bool,
    /// Whether the last frame that was written is complete.
    is_flushed: bool,
}

/// The unit that the peer is sending: a frame, or the frames of one block of headers.
#[derive(Debug)]
struct Unit {
    /// How many bytes of the frame's payload are missing.
    left: usize,
    /// The header of the next frame, of which `read` bytes are there.
    header: [u8; HEADER],
    read: usize,
    /// Whether another frame must follow: the settings at first, then the rest of a block of headers.
    is_awaited: bool,
    /// The last call that was begun, and the last call that had been begun when nothing more could be read.
    last: u32,
    seen: u32,
    /// How many calls were given up that no layer can have seen.
    resets: u32,
}

/// How many more calls the peer may give up unseen. A second's budget is as many as the peer may have at a time. A few
/// seconds' budget may be used at once: a peer does so when all its deadlines pass while the gateway does not run.
#[derive(Debug)]
struct Resets {
    each_second: f64,
    left: f64,
    at: Instant,
}

/// Returns how many calls a peer may give up at once before a layer has seen them.
pub(super) fn max_unseen_resets(max_calls: u32) -> u32 {
    max_calls.max(Resets::LEAST).saturating_mul(Resets::BURST)
}

impl<IO> Frames<IO> {
    /// Watches a connection whose preface was read. Its peer must finish each frame within `timeout`, and may have
    /// `max_calls` calls at a time.
    pub(super) fn new(io: IO, timeout: Duration, max_calls: u32, conduct: Arc<PeerConduct>) -> Self {
        Self {
            io,
            preface: PREFACE,
            unit: Unit::new(),
            resets: Resets::new(max_calls),
            conduct,
            timeout,
            peer_timeout: PeerTimeout::new(timeout),
            is_waiting: true,
            is_flushed: true,
        }
    }

    /// Returns whether the peer has begun something that is not finished.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Accounts for bytes that the peer sent.
    fn took(&mut self, bytes: &[u8]) {
        let has_finished = self.unit.take(bytes);
        if !self.resets.take(std::mem::take(&mut self.unit.resets)) {
            self.conduct.cut(Cut::Resets);
        }
        if self.unit.is_finished() {
            self.is_waiting = false;
        } else if has_finished || !self.is_waiting {
            self.peer_timeout.restart(self.timeout);
            self.is_waiting = true;
        }
    }
}

impl<IO: AsyncWrite + Unpin> Frames<IO> {
    /// Fails if the connection was cut. h2 reads nothing while it cannot write, so both reads and writes must check.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.conduct.why_cut().map_or(Ok(()), |why| Err(self.end(cx, why)))
    }

    /// Ends the connection: with GOAWAY, where that can be written at once.
    fn end(&mut self, cx: &mut Context<'_>, why: Cut) -> io::Error {
        if self.is_flushed {
            let text: &[u8] = match why {
                Cut::Slow => b"what was begun was not finished in time",
                _ => b"too many calls were given up",
            };
            let _gone = Pin::new(&mut self.io).poll_write(cx, &goaway(self.unit.last, text));
            let _gone = Pin::new(&mut self.io).poll_flush(cx);
            self.is_flushed = false;
        }
        io::Error::other(why.as_str())
    }
}

fn goaway(last: u32, text: &[u8]) -> Vec<u8> {
    let [.., high, low] = (text.len() + 8).to_be_bytes();
    let header = [0, high, low, GOAWAY, 0, 0, 0, 0, 0];
    [&header[..], &last.to_be_bytes(), &[0, 0, 0, ENHANCE_YOUR_CALM], text].concat()
}

impl Resets {
    /// The least budget of a second: a peer that may have few calls at a time may give each of them up at once.
    const LEAST: u32 = 100;
    /// How many seconds' budget may be used at once.
    const BURST: u32 = 4;

    fn new(max_calls: u32) -> Self {
        let each_second = f64::from(max_calls.max(Self::LEAST));
        Self { each_second, left: f64::from(max_unseen_resets(max_calls)), at: Instant::now() }
    }

    /// Takes this many calls from the budget. Returns whether it sufficed.
    fn take(&mut self, resets: u32) -> bool {
        if resets == 0 {
            return true;
        }
        let now = Instant::now();
        let more = self.each_second * (now - self.at).as_secs_f64();
        self.left = (self.left + more).min(f64::from(Self::BURST) * self.each_second) - f64::from(resets);
        self.at = now;
        self.left >= 0.0
    }
}

impl Unit {
    fn new() -> Self {
        Self { left: 0, header: [0; HEADER], read: 0, is_awaited: true, last: 0, seen: 0, resets: 0 }
    }

    fn is_finished(&self) -> bool {
        self.left == 0 && self.read == 0 && !self.is_awaited
    }

    /// Accounts for the next bytes. Returns whether a unit ended in them.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_finished = false;
        while !bytes.is_empty() {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= payload.len();
                bytes = rest;
            } else {
                let (part, rest) = bytes.split_at(bytes.len().min(HEADER - self.read));
                let to = self.header.iter_mut().skip(self.read);
                to.zip(part).for_each(|(to, from)| *to = *from);
                self.read += part.len();
                bytes = rest;
                if self.read < HEADER {
                    continue;
                }
                self.read = 0;
                self.begin();
            }
            has_finished |= self.is_finished();
        }
        has_finished
    }

    /// Begins the frame whose header was read.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        match kind {
            HEADERS => self.last = self.last.max(stream),
            RST_STREAM => self.resets += u32::from(stream > self.seen),
            _ => {}
        }
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.is_awaited = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0;
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.preface.is_empty() {
            let (part, rest) = self.preface.split_at(self.preface.len().min(to.remaining()));
            to.put_slice(part);
            self.preface = rest;
            return Poll::Ready(Ok(()));
        }
        self.conduct.reads(cx.waker());
        let before = to.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, to);
        match &outcome {
            Poll::Ready(_) => self.took(to.filled().split_at(before).1),
            // Bytes that have arrived and were not read yet are not late.
            Poll::Pending => {
                self.unit.seen = self.unit.last;
                if self.is_waiting && self.peer_timeout.poll(cx).is_ready() {
                    self.conduct.cut(Cut::Slow);
                }
            }
        }
        self.check(cx)?;
        outcome
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Frames<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        self.is_flushed = false;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        self.is_flushed = false;
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // h2 flushes when it has written every frame to its end.
        self.is_flushed = true;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
