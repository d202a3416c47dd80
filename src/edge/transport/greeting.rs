//! Reads what a peer begins with: HTTP/2's preface, or something else.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time,
};

/// The preface, with which every connection of HTTP/2 begins (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a peer that speaks HTTP/1.1 may take for its answer, and how much more of its request is read: a socket
/// that is closed with unread bytes in it discards the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_REQUEST: u64 = 64 << 10;

/// The protocol that a peer speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// HTTP/2; the whole preface was read.
    Http2,
    /// HTTP/1.1, by its first letters.
    Http1,
    /// Another protocol.
    Other,
    /// The peer closed the connection without a word.
    Silence,
}

/// Reads until the protocol of the peer is known.
pub(super) async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<Greeting> {
    let mut bytes = [0; PREFACE.len()];
    let mut len = 0;
    loop {
        let read = io.read(bytes.split_at_mut(len).1).await?;
        if read == 0 {
            return Ok(if len == 0 { Greeting::Silence } else { Greeting::Other });
        }
        len += read;
        let said = bytes.split_at(len).0;
        if said == PREFACE {
            return Ok(Greeting::Http2);
        }
        if !PREFACE.starts_with(said) {
            let is_text = said.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
            let is_http1 = is_text && said.first().is_some_and(u8::is_ascii_uppercase);
            return Ok(if is_http1 { Greeting::Http1 } else { Greeting::Other });
        }
    }
}

/// Answers a request of HTTP/1.1 with 505, whose text names the protocols that the gateway speaks. 426 would have to
/// offer an upgrade, and there is none: RFC 9113 has given up h2c, and HTTP/2 is spoken from the first byte on.
pub(super) async fn refuse_http1<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) {
    let text = "This port speaks gRPC over HTTP/2 (with prior knowledge, or by ALPN h2 in TLS), not HTTP/1.1.\n\
        Probes by HTTP/1.1 belong to the admin address: /livez and /readyz.\n";
    let answer = format!(
        "HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Type: text/plain\r\n\
        Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    let answering = async {
        io.write_all(answer.as_bytes()).await?;
        io.flush().await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(MAX_REQUEST), &mut tokio::io::sink()).await
    };
    // A peer that leaves before it has its answer wants none.
    let _gone = time::timeout(ANSWER_TIMEOUT, answering).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(parts: &[&[u8]]) -> Greeting {
        let (mut peer, mut io) = tokio::io::duplex(64);
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let saying = tokio::spawn(async move {
            for part in parts {
                let _gone = peer.write_all(&part).await;
                tokio::task::yield_now().await;
            }
        });
        let greeting = read(&mut io).await.unwrap();
        saying.await.unwrap();
        greeting
    }

    #[tokio::test]
    async fn a_greeting_is_known_in_whatever_pieces_it_comes() {
        let pieces: Vec<&[u8]> = PREFACE.chunks(1).collect();
        assert_eq!(said(&pieces).await, Greeting::Http2);
        assert_eq!(said(&[PREFACE]).await, Greeting::Http2);
        for request in ["GET / HTTP/1.1\r\n\r\n", "POST /a HTTP/1.1\r\n", "P", "PRI * HTTP/1.1\r\n"] {
            let expected = if request == "P" { Greeting::Other } else { Greeting::Http1 };
            assert_eq!(said(&[request.as_bytes()]).await, expected, "{request}");
        }
        assert_eq!(said(&[&[22, 3, 1, 2, 0, 1]]).await, Greeting::Other);
        assert_eq!(said(&[]).await, Greeting::Silence);
    }
}
