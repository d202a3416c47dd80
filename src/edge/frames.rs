//! A peer's side of HTTP/2, watched for what it begins and does not finish. Framing by RFC 9113, section 4.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Instant, Sleep},
};

/// The length of what every connection begins with.
const PREFACE: usize = 24;
const HEADER: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A connection that fails where its peer takes too long for what it has begun: the preface and the settings, a frame, or
/// the frames of one block of headers. HTTP/2 libraries wait for these without bound, and a ping does not find them out. Nor
/// do they mind calls that are given up again and again once they were begun (CVE-2023-44487).
#[derive(Debug)]
pub(super) struct Frames<IO> {
    io: IO,
    unit: Unit,
    resets: Resets,
    has_greeted: Arc<AtomicBool>,
    timeout: Duration,
    /// When what is not finished must be.
    due: Option<Instant>,
    /// Wakes up at `due` or before.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// How far the peer is with what it sends.
#[derive(Debug)]
struct Unit {
    /// The bytes of the preface or the payload that are still to come before the next frame's header.
    left: usize,
    header: [u8; HEADER],
    /// How much of that there is.
    read: usize,
    /// Whether a frame must follow: the first one, or more of the headers.
    is_awaited: bool,
    /// How many calls were given up.
    resets: u32,
}

/// How many calls the peer may still give up: all it may have at a time once a second, and a few seconds' worth at once.
#[derive(Debug)]
struct Resets {
    each_second: f64,
    left: f64,
    at: Instant,
}

impl<IO> Frames<IO> {
    /// Watches a connection whose peer must greet, and then finish each frame, within `timeout`, and may have so many calls at a
    /// time.
    pub(super) fn new(io: IO, timeout: Duration, max_calls: u32) -> Self {
        let (unit, resets) = (Unit::new(), Resets::new(max_calls));
        Self {
            io,
            unit,
            resets,
            has_greeted: Arc::default(),
            timeout,
            due: Some(Instant::now() + timeout),
            sleep: None,
        }
    }

    /// Whether the peer has begun to speak HTTP/2, now and later.
    pub(super) fn has_greeted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_greeted)
    }

    fn took(&mut self, bytes: &[u8]) -> io::Result<()> {
        let has_finished = self.unit.take(bytes);
        self.resets.take(std::mem::take(&mut self.unit.resets))?;
        if has_finished && !self.has_greeted.load(Relaxed) {
            self.has_greeted.store(true, Relaxed);
        }
        if self.unit.is_finished() {
            self.due = None;
        } else if has_finished || self.due.is_none() {
            self.due = Some(Instant::now() + self.timeout);
        }
        Ok(())
    }

    /// Ready when the peer has taken too long.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(time::sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Resets {
    /// However few calls it may have at a time, since it may give each of them up at once.
    const LEAST: u32 = 100;
    /// So many seconds' worth may come at once.
    const BURST: f64 = 4.0;

    fn new(max_calls: u32) -> Self {
        let each_second = f64::from(max_calls.max(Self::LEAST));
        Self { each_second, left: Self::BURST * each_second, at: Instant::now() }
    }

    fn take(&mut self, resets: u32) -> io::Result<()> {
        if resets == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let more = self.each_second * (now - self.at).as_secs_f64();
        self.left = (self.left + more).min(Self::BURST * self.each_second) - f64::from(resets);
        self.at = now;
        if self.left < 0.0 { Err(io::Error::other("the peer gives up more calls than it may have")) } else { Ok(()) }
    }
}

impl Unit {
    fn new() -> Self {
        Self { left: PREFACE, header: [0; HEADER], read: 0, is_awaited: true, resets: 0 }
    }

    fn is_finished(&self) -> bool {
        self.left == 0 && self.read == 0 && !self.is_awaited
    }

    /// Takes what came next. Tells whether anything was finished by it.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_finished = false;
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
            } else {
                let (part, rest) = bytes.split_at(bytes.len().min(HEADER - self.read));
                let to = self.header.iter_mut().skip(self.read);
                to.zip(part).for_each(|(to, from)| *to = *from);
                self.read += part.len();
                bytes = rest;
                if self.read == HEADER {
                    let [a, b, c, kind, flags, ..] = self.header;
                    self.read = 0;
                    self.resets += u32::from(kind == RST_STREAM);
                    self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                    self.is_awaited = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0;
                } else {
                    continue;
                }
            }
            has_finished |= self.is_finished();
        }
        has_finished
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Frames<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, to);
        if outcome.is_ready() {
            self.took(to.filled().get(before..).unwrap_or_default())?;
        }
        if self.poll_due(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not finish what it began")));
        }
        outcome
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Frames<IO> {
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
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1][..], &vec![0; payload]].concat()
    }

    /// The preface, and settings.
    fn greeting() -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 6)].concat()
    }

    /// Sends the parts a second apart, and tells how many of them were read before the connection failed, if it did.
    async fn send(parts: &[&[u8]]) -> (usize, bool) {
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        let mut frames = Frames::new(io, 2 * SECOND, 100);
        let sending = async {
            for part in parts {
                peer.write_all(part).await.unwrap();
                time::sleep(SECOND).await;
            }
            time::sleep(10 * SECOND).await;
        };
        let reading = async {
            let (mut reads, mut buffer) = (0, vec![0; 1 << 16]);
            loop {
                match frames.read(&mut buffer).await {
                    Ok(_) => reads += 1,
                    Err(_) => return (reads, true),
                }
            }
        };
        let mut reading = std::pin::pin!(reading);
        tokio::select! {
            outcome = &mut reading => outcome,
            () = sending => (parts.len(), false),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_finishes_what_it_begins_may_be_silent_for_ever() {
        let headers = frame(HEADERS, 0, 5);
        let rest = frame(CONTINUATION, END_HEADERS, 5);
        let (half, other) = headers.split_at(11);
        let greeting = greeting();
        let (preface, settings) = greeting.split_at(PREFACE);
        assert_eq!(send(&[&greeting]).await, (1, false));
        assert_eq!(send(&[preface, settings, &headers, &rest, &frame(0, 1, 100)]).await, (5, false));
        assert_eq!(send(&[&greeting, half, &[other, &rest].concat()]).await, (3, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_is_shown_out() {
        let greeting = greeting();
        let drip: Vec<&[u8]> = greeting.chunks(1).collect();
        assert_eq!(send(&drip).await, (2, true), "two seconds for a greeting");
        assert_eq!(send(&[]).await, (0, true));
        assert_eq!(send(&[&greeting[..PREFACE]]).await, (1, true));
        let headers = frame(HEADERS, 0, 1);
        let more = frame(CONTINUATION, 0, 1);
        assert_eq!(send(&[&greeting, &headers, &more, &more, &more]).await, (3, true), "two for a block of headers");
        let data = frame(0, 0, 100);
        let drip: Vec<&[u8]> = std::iter::once(&*greeting).chain(data.chunks(1)).collect();
        assert_eq!(send(&drip).await, (3, true), "and two for a frame");
        let next = [&data[..], &data[..7]].concat();
        assert!(send(&[&greeting, &data[..3], &[&data[3..], &data[..7]].concat(), &[], &[]]).await.1);
        assert_eq!(send(&[&greeting, &next]).await, (2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_give_up_all_its_calls_once_a_second_and_no_more() {
        let (greeting, all) = (greeting(), frame(RST_STREAM, 0, 4).repeat(100));
        let patient: Vec<&[u8]> = std::iter::once(&*greeting).chain([&*all; 20]).collect();
        assert_eq!(send(&patient).await, (21, false));
        let too_many = all.repeat(4);
        assert_eq!(send(&[&greeting, &too_many, &all, &all]).await, (4, false));
        assert_eq!(send(&[&greeting, &[&*too_many, &all].concat()]).await, (1, true));
        let double = all.repeat(2);
        let hasty: Vec<&[u8]> = std::iter::once(&*greeting).chain([&*double; 20]).collect();
        assert_eq!(send(&hasty).await, (4, true));
    }

    proptest! {
        #[test]
        fn any_frames_in_any_pieces_are_finished_at_their_end(
            payloads in prop::collection::vec((0..300usize, any::<bool>()), 0..6),
            size in 1..50usize,
        ) {
            let mut unit = Unit::new();
            let mut bytes = greeting();
            for (payload, is_data) in payloads {
                bytes.extend(if is_data { frame(0, 0, payload) } else { frame(HEADERS, END_HEADERS, payload) });
            }
            for piece in bytes.chunks(size) {
                unit.take(piece);
            }
            prop_assert!(unit.is_finished());
            unit.take(&bytes[..1]);
            prop_assert!(!unit.is_finished());
        }
    }
}
