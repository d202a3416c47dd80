//! The gateway's NextToken. It carries all that is needed to go on in another process: which query, which upstream
//! page, and what was handed out of it. It grants nothing, so it is guarded against accidents, not against forgery.
//!
//! Text form: unpadded URL-safe base64 of one version byte, eight check bytes (the head of a SHA-256 over version and
//! payload), and the payload in protobuf.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::model::Records;

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;

/// A cursor that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// It is not one of the gateway's, or was damaged on its way.
    #[error("malformed")]
    Malformed,
    /// It belongs to another target or other filters.
    #[error("of another query")]
    OtherQuery,
    /// It is older than the gateway keeps to it.
    #[error("expired")]
    Expired,
}

/// A place in the listing of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    /// Inside an upstream page or at its start.
    At(ResumePoint),
    /// Behind the last record; the time is that of the answer which said so.
    End(SystemTime),
}

/// A place in a walk that is not at its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ResumePoint {
    /// The listing that it was handed out of, which may be gone.
    pub(super) listing: u64,
    /// The token that leads to the upstream page; none leads to the first.
    pub(super) token: Option<Arc<str>>,
    /// How many upstream pages lie before it.
    pub(super) pages_before: u32,
    /// How many of its records were handed out.
    pub(super) offset: usize,
    /// The ID of the last of them: the page may have changed when it is fetched again.
    pub(super) last_id: Option<String>,
}

/// The payload. Fields are only ever added, under a new version if an old reader would go wrong without them.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    fingerprint: Vec<u8>,
    #[prost(uint64, tag = "2")]
    issued_at_millis: u64,
    #[prost(string, optional, tag = "3")]
    token: Option<String>,
    #[prost(uint32, tag = "4")]
    pages_before: u32,
    #[prost(uint64, tag = "5")]
    offset: u64,
    #[prost(string, optional, tag = "6")]
    last_id: Option<String>,
    #[prost(uint64, optional, tag = "7")]
    ended_as_of_millis: Option<u64>,
    #[prost(fixed64, tag = "8")]
    listing: u64,
    /// What the token stands for, where it is base64: AWS's tokens are, and this halves what encoding them again adds.
    #[prost(bytes = "vec", optional, tag = "9")]
    decoded_token: Option<Vec<u8>>,
}

impl Cursor {
    /// Writes the cursor for callers of the query with this fingerprint.
    pub(super) fn to_text(&self, fingerprint: [u8; 16], now: SystemTime) -> String {
        let mut payload =
            Payload { fingerprint: fingerprint.to_vec(), issued_at_millis: to_millis(now), ..Payload::default() };
        match self {
            Self::At(ResumePoint { listing, token, pages_before, offset, last_id }) => {
                payload.listing = *listing;
                // Only the one text that is written for these bytes is decoded to them.
                payload.decoded_token = token.as_deref().and_then(|token| BASE64_STANDARD.decode(token).ok());
                payload.token = token.as_deref().filter(|_| payload.decoded_token.is_none()).map(str::to_owned);
                payload.pages_before = *pages_before;
                payload.offset = *offset as u64;
                payload.last_id.clone_from(last_id);
            }
            Self::End(as_of) => payload.ended_as_of_millis = Some(to_millis(*as_of)),
        }
        let payload = payload.encode_to_vec();
        let bytes = [&[VERSION], check(&payload).as_slice(), &payload].concat();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::to_text`] wrote, in this process or another.
    pub(super) fn parse(
        text: &str,
        fingerprint: [u8; 16],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Self, InvalidCursor> {
        let payload = Payload::parse(text).ok_or(InvalidCursor::Malformed)?;
        if payload.fingerprint != fingerprint {
            return Err(InvalidCursor::OtherQuery);
        }
        // One from the future comes from a replica whose clock is ahead.
        let age = to_millis(now).saturating_sub(payload.issued_at_millis);
        if u128::from(age) >= lifetime.as_millis() {
            return Err(InvalidCursor::Expired);
        }
        if let Some(millis) = payload.ended_as_of_millis {
            return Ok(Self::End(
                UNIX_EPOCH.checked_add(Duration::from_millis(millis)).ok_or(InvalidCursor::Malformed)?,
            ));
        }
        let offset = usize::try_from(payload.offset).map_err(|_out_of_range| InvalidCursor::Malformed)?;
        let Payload { listing, token, decoded_token, pages_before, last_id, .. } = payload;
        let token = decoded_token.map(|token| BASE64_STANDARD.encode(token)).or(token).map(Arc::from);
        Ok(Self::At(ResumePoint { listing, token, pages_before, offset, last_id }))
    }
}

/// Returns the fingerprint of the query that a cursor belongs to.
pub(super) fn fingerprint(text: &str) -> Option<Vec<u8>> {
    Payload::parse(text).map(|payload| payload.fingerprint)
}

impl ResumePoint {
    /// Returns how many records of the page, fetched again, were handed out. The page may have changed: reading goes on
    /// where its last record went, at the first of several, and without a trace of that the page is given whole. A
    /// repeat does less harm than a loss.
    pub(super) fn find_again(&self, records: &Records) -> usize {
        let Some(last) = self.offset.checked_sub(1) else { return 0 };
        let is_last = |index: &usize| records.id(*index) == self.last_id.as_deref();
        if last < records.len() && is_last(&last) {
            return self.offset;
        }
        (0..records.len()).find(is_last).map_or(0, |index| index + 1)
    }
}

impl Payload {
    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (_, rest) = bytes.split_first().filter(|&(&version, _)| version == VERSION)?;
        let (found, payload) = rest.split_at_checked(CHECK_BYTES)?;
        (found == check(payload)).then(|| Self::decode(payload).ok())?
    }
}

fn check(payload: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update([VERSION]).chain_update(payload).finalize();
    let mut head = [0; CHECK_BYTES];
    head.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    head
}

fn to_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A reader that could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such target.
    #[error("the target is unknown")]
    UnknownTarget,
    /// The cursor leads nowhere.
    #[error("the cursor is invalid")]
    InvalidCursor(#[from] InvalidCursor),
}

#[cfg(test)]
mod tests;
