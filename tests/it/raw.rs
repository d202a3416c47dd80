//! HTTP/2 by hand, for peers that no library would be.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::within;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

pub(crate) const STREAM: &str = "/ssm_gateway.v1.InstanceInformationService/StreamInstanceInformation";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A field of headers, which is added to no table.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The headers of a call.
pub(crate) fn headers(path: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` are in the static table.
    let rest = [(":path", path), (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")];
    [vec![0x83, 0x86], rest.iter().flat_map(|(name, value)| field(name, value)).collect()].concat()
}

/// A whole call with an empty message.
pub(crate) fn call(stream: u32, path: &str) -> Vec<u8> {
    call_with(stream, path, &[], &[])
}

/// A whole call with these headers beside the usual ones, and this message.
pub(crate) fn call_with(stream: u32, path: &str, more: &[(&str, &str)], message: &[u8]) -> Vec<u8> {
    let headers = [headers(path), more.iter().flat_map(|(name, value)| field(name, value)).collect()].concat();
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    let data = [&[0][..], &len, message].concat();
    [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, END_STREAM, stream, &data)].concat()
}

/// Lets the gateway send so many bytes more on this stream, or, on stream 0, on all of them.
pub(crate) fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// Gives a call up.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// A connection whose peer is the test.
pub(crate) struct Raw<IO = TcpStream>(pub(crate) IO);

/// A frame that was received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// Connects, and says nothing.
    pub(crate) async fn silent(addr: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(addr)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Connects, and greets with these settings.
    pub(crate) async fn greeting(addr: SocketAddr, settings: &[u8]) -> Self {
        let mut raw = Self::silent(addr).await;
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await.unwrap();
        raw
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Raw<IO> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// The next frame; none at the end, however it came.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        within(self.0.read_exact(&mut header)).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within(self.0.read_exact(&mut payload)).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of this kind; pings and settings are acknowledged meanwhile.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame_ = self.next().await?;
            if matches!(frame_.kind, PING | SETTINGS) && frame_.flags & ACK == 0 {
                let payload = if frame_.kind == PING { &frame_.payload[..] } else { &[] };
                let _gone = self.send(&frame(frame_.kind, ACK, 0, payload)).await;
            }
            if frame_.kind == kind {
                return Some(frame_);
            }
        }
    }

    /// The next frame of this stream.
    pub(crate) async fn next_of_stream(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().await.unwrap();
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// Reads all that comes until the connection is closed.
    pub(crate) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }
}
