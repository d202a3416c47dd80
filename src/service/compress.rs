//! Compression of answers, message by message, if it is configured, the caller accepts it, and the message is large
//! enough.

use std::io;

use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::grpc::PREFIX;

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The fastest level of both: higher levels save little and cost a multiple.
const LEVEL: u8 = 1;

/// A compression of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// How the answers of a call are compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compression {
    encoding: Encoding,
    /// The size of the smallest message that is compressed.
    from: usize,
}

impl Compression {
    /// Returns the compression by the first of the configured encodings that the caller accepts, of messages from this
    /// size on; none if there is none.
    pub(super) fn of(encodings: &[Encoding], from: usize, headers: &HeaderMap) -> Option<Self> {
        encodings.first()?;
        let accepted = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
        let is_accepted = |encoding: &&Encoding| accepted.split(',').any(|name| name.trim() == encoding.name());
        let encoding = *encodings.iter().find(is_accepted)?;
        Some(Self { encoding, from })
    }

    /// Returns the value of `grpc-encoding`.
    pub(super) fn name(self) -> HeaderValue {
        HeaderValue::from_static(self.encoding.name())
    }

    /// Returns the message in these pieces as one compressed piece; none if the message is too small, or would not
    /// become smaller.
    pub(super) fn compress<'a>(self, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Vec<u8>> {
        let size = pieces.clone().map(<[u8]>::len).sum::<usize>().checked_sub(PREFIX)?;
        if size < self.from {
            return None;
        }
        self.encoding.encode(pieces).ok().filter(|compressed| compressed.len() < size + PREFIX)
    }
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn encode<'a>(self, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<Vec<u8>> {
        let mut message = vec![1; PREFIX];
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(&mut message, flate2::Compression::new(LEVEL.into()));
                write(pieces, &mut encoder)?;
                encoder.finish()?;
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(&mut message, LEVEL.into())?;
                write(pieces, &mut encoder)?;
                encoder.finish()?;
            }
        }
        let len = u32::try_from(message.len() - PREFIX).map_err(io::Error::other)?;
        message.splice(1..PREFIX, len.to_be_bytes());
        Ok(message)
    }
}

/// Writes all bytes behind the prefix.
fn write<'a>(pieces: impl Iterator<Item = &'a [u8]>, to: &mut impl io::Write) -> io::Result<()> {
    let mut left = PREFIX;
    for piece in pieces {
        let skipped = left.min(piece.len());
        to.write_all(piece.get(skipped..).unwrap_or_default())?;
        left -= skipped;
    }
    Ok(())
}
