//! Streams of pages, of one target or merged from several.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::Response;

use super::{
    answer::{Answer, Answers},
    call_context::CallContext,
    compress::Compression,
    provenance,
    serving::Serving,
    status,
    validate::{self, Constraints},
};
use crate::{
    grpc::{Body, CallNotes, Failure, message_head},
    model::{Query, TargetName},
    proto::{StreamInstanceInformationRequest, StreamInstanceInformationResponse},
    read::{Head, Provenance, ReadClock, Reader, WholePage},
};

/// The number of `StreamInstanceInformationResponse.resume_token`.
const RESUME_TOKEN: u32 = 19;
/// How many targets of a call are read at a time.
const MAX_TARGETS_AT_ONCE: usize = 64;

/// Answers page after page. Awaits the first page, because a failure before it must be the call's status alone.
#[expect(clippy::expect_used, reason = "a call without a target is rejected when it is authorised")]
pub(super) async fn stream(
    serving: &Serving,
    call: &CallContext<'_>,
    request: StreamInstanceInformationRequest,
) -> Result<Response<Body>, Failure> {
    let (mut targets, clock) = target_streams(serving, call, request)?;
    if targets.len() > 1 {
        return merge(targets, clock, call.compression).await;
    }
    // Boxed, because the state of `try_unfold` moves with every message.
    let mut target = Box::new(targets.pop().expect("a call has at least one target"));
    let first = target.next().await?;
    let rest = stream::try_unfold(target, async |mut target| {
        if target.reader.is_at_end() { Ok(None) } else { Ok(Some((target.next().await?, target))) }
    });
    Ok(first.into_http(Some(Answers { stream: rest.boxed(), clock }), call.compression))
}

/// Authorises and validates a request. Returns a stream for each of its targets, and the clock that these share.
fn target_streams(
    serving: &Serving,
    call: &CallContext<'_>,
    request: StreamInstanceInformationRequest,
) -> Result<(Vec<TargetStream>, Arc<ReadClock>), Failure> {
    let Serving { listings, config, .. } = serving;
    let freshness = validate::freshness(request.read_options)?;
    let targets = call.targets(&request.targets, freshness.max_age)?;
    let limit = validate::page_size(request.page_size)?;
    let mut constraints = Constraints::new(config.max_filters);
    let filters = constraints.filters(request.filters)?;
    constraints.finish()?;
    let queries = targets.into_iter().map(|target| validate::query(target, filters.clone(), Vec::new()));
    let queries = queries.collect::<Result<Vec<_>, _>>()?;
    let mut tokens = validate::resume_tokens(request.resume_tokens, &queries, listings)?;
    let clock = Arc::default();
    let mut streams = Vec::with_capacity(queries.len());
    for (index, query) in queries.into_iter().enumerate() {
        let (field, cursor) = tokens.remove(&index).unzip();
        let reader = listings
            .open(&query, freshness, cursor.as_deref())
            .map_err(|error| status::open_error(error, &query, &field.unwrap_or_default()))?;
        let token = cursor.unwrap_or_default().into();
        let notes = call.notes.clone();
        streams.push(TargetStream { reader: reader.streaming().with_clock(&clock), query, limit, token, notes });
    }
    Ok((streams, clock))
}

/// Merges the messages of all targets as they arrive. The failure of a target is a message, too, until every target has
/// failed: then the failure is the call's.
#[expect(clippy::expect_used, reason = "a stream without page and failure would be an answer cut short")]
async fn merge(
    targets: Vec<TargetStream>,
    clock: Arc<ReadClock>,
    compression: Option<Compression>,
) -> Result<Response<Body>, Failure> {
    let not_failed = targets.len();
    let mut messages = stream::iter(targets).map(TargetStream::messages).flatten_unordered(MAX_TARGETS_AT_ONCE).boxed();
    let mut failed = Vec::new();
    let first = loop {
        match messages.next().await {
            Some(Ok(answer)) => break answer,
            Some(Err(unreached)) => failed.push(unreached),
            None => return Err(failed.into_iter().next().expect("each target has a page or a failure").failure),
        }
    };
    let rest = stream::iter(failed.into_iter().map(Err).collect::<Vec<_>>()).chain(messages).boxed();
    let rest = stream::unfold((rest, not_failed), async |(mut rest, not_failed)| {
        Some(match rest.next().await? {
            Ok(answer) => (Ok(answer), (rest, not_failed)),
            Err(unreached) if not_failed > 1 => (Ok(unreached.message), (rest, not_failed - 1)),
            Err(unreached) => (Err(unreached.failure), (rest, 0)),
        })
    });
    Ok(first.into_http(Some(Answers { stream: rest.boxed(), clock }), compression))
}

/// Writes what goes before a whole page that is sent as it stands: fresh, and with the cursor behind it.
pub(super) fn head(page: &WholePage<'_>) -> Head {
    let token = Some((RESUME_TOKEN, page.cursor.len()));
    let following = page.cursor.len() + page.records_len;
    let bytes = message_head(&rest(page.target, page.as_of, false), token, following);
    Head::before_cursor::<StreamInstanceInformationResponse>(bytes)
}

/// Returns a message with all fields but its records and its resume token.
fn rest(target: &TargetName, as_of: SystemTime, stale: bool) -> StreamInstanceInformationResponse {
    let target = target.to_string();
    let as_of = Some(as_of.into());
    StreamInstanceInformationResponse { target, as_of, stale, ..Default::default() }
}

/// The pages of one target.
struct TargetStream {
    reader: Reader,
    query: Query,
    /// The most records in a message.
    limit: usize,
    /// The resume token of the last message.
    token: Bytes,
    notes: CallNotes,
}

/// The failure of a target, and the message that reports it beside the pages of others.
struct Unreached {
    failure: Failure,
    message: Answer,
}

impl TargetStream {
    /// Returns the next page.
    async fn next(&mut self) -> Result<Answer, Failure> {
        let page = self.reader.read(self.limit).await.map_err(|error| status::read_error(&error, &self.query))?;
        self.notes.note(|noted| provenance::note(&page, noted));
        let Provenance { as_of, is_stale, .. } = page.provenance;
        self.token = page.cursor.clone();
        let fresh = page.rendered.as_ref().filter(|_| !is_stale);
        Ok(match fresh.and_then(|page| page.message::<StreamInstanceInformationResponse>()) {
            Some(message) => Answer::ready(message),
            None => Answer::new(page, Some(RESUME_TOKEN), &rest(self.query.target(), as_of, is_stale)),
        })
    }

    /// Returns all pages, up to the first failure.
    fn messages(self) -> BoxStream<'static, Result<Answer, Unreached>> {
        stream::unfold(Some(self), async |target| {
            let mut target = target?;
            match target.next().await {
                Ok(answer) => Some((Ok(answer), Some(target).filter(|target| !target.reader.is_at_end()))),
                Err(failure) => Some((Err(target.unreached(failure)), None)),
            }
        })
        .boxed()
    }

    fn unreached(self, failure: Failure) -> Unreached {
        self.notes.note(|noted| noted.unreachable += 1);
        let message = StreamInstanceInformationResponse {
            target: self.query.target().to_string(),
            resume_token: String::from_utf8_lossy(&self.token).into_owned(),
            unreachable: Some(status::unreachable(&failure)),
            ..Default::default()
        };
        Unreached { message: Answer::message(&message), failure }
    }
}
