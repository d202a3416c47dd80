//! Page after page, of one target or of many at once.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::Response;

use super::{
    answer::{Answer, Answers, message_head},
    call_context::CallContext,
    compress::Compression,
    provenance,
    serving::Serving,
    status,
    validate::{self, Constraints},
};
use crate::{
    grpc::{Body, CallNotes, Failure, Reason},
    model::{Query, TargetName},
    proto::{StreamInstanceInformationRequest, StreamInstanceInformationResponse},
    read::{Head, Provenance, ReadClock, Reader, WholePage},
};

/// The number of `StreamInstanceInformationResponse.resume_token`.
const RESUME_TOKEN: u32 = 19;
/// How many targets of a call are read at a time.
const WIDTH: usize = 64;

/// Answers page after page, the first of which is awaited: an error before it must come without headers.
pub(super) async fn stream(
    serving: &Serving,
    call: &CallContext<'_>,
    request: StreamInstanceInformationRequest,
) -> Result<Response<Body>, Failure> {
    let (mut walks, clock) = walks(serving, call, request)?;
    if walks.len() > 1 {
        return merged(walks, clock, call.compression).await;
    }
    // In a box, since it moves in and out of the stream with every message.
    let mut walk = Box::new(walks.pop().ok_or_else(no_target)?);
    let first = walk.next().await?;
    let rest =
        stream::try_unfold(
            walk,
            async |mut walk| {
                if walk.reader.is_at_end() { Ok(None) } else { Ok(Some((walk.next().await?, walk))) }
            },
        );
    Ok(first.into_http(Some(Answers { stream: rest.boxed(), clock }), call.compression))
}

/// Not to be seen: a call that means no target was refused.
fn no_target() -> Failure {
    Failure::new(Reason::Internal, "the call means no target")
}

/// What is asked of each target, and the clock that they share.
fn walks(
    serving: &Serving,
    call: &CallContext<'_>,
    request: StreamInstanceInformationRequest,
) -> Result<(Vec<Walk>, Arc<ReadClock>), Failure> {
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
    let mut walks = Vec::with_capacity(queries.len());
    for (index, query) in queries.into_iter().enumerate() {
        let (field, cursor) = tokens.remove(&index).unzip();
        let reader = listings
            .open(&query, freshness, cursor.as_deref())
            .map_err(|error| status::unopened(error, &query, &field.unwrap_or_default()))?;
        let token = cursor.unwrap_or_default().into();
        let notes = call.notes.clone();
        walks.push(Walk { reader: reader.streaming().with_clock(&clock), query, limit, token, notes });
    }
    Ok((walks, clock))
}

/// The messages of all walks as they come. A target that fails is told in a message of its own, unless all do.
async fn merged(
    walks: Vec<Walk>,
    clock: Arc<ReadClock>,
    compression: Option<Compression>,
) -> Result<Response<Body>, Failure> {
    let targets = walks.len();
    let mut messages = stream::iter(walks).map(Walk::messages).flatten_unordered(WIDTH).boxed();
    let mut failed = Vec::new();
    let first = loop {
        match messages.next().await {
            Some(Ok(answer)) => break answer,
            Some(Err(failure)) => failed.push(failure),
            None => {
                return Err(failed.into_iter().next().map_or_else(no_target, |(failure, _)| failure));
            }
        }
    };
    let told = failed.into_iter().map(Err).collect::<Vec<_>>();
    let rest = stream::iter(told).chain(messages).boxed();
    let rest = stream::unfold((rest, 0usize), move |(mut rest, failures)| async move {
        match rest.next().await? {
            Ok(answer) => Some((Ok(answer), (rest, failures))),
            Err((_, answer)) if failures + 1 < targets => Some((Ok(answer), (rest, failures + 1))),
            Err((failure, _)) => Some((Err(failure), (rest, failures + 1))),
        }
    });
    Ok(first.into_http(Some(Answers { stream: rest.boxed(), clock }), compression))
}

/// Writes what goes before a whole page that is sent as it stands: fresh, and with the cursor behind it.
pub(super) fn head(page: &WholePage<'_>) -> Head {
    let (token, following) = (Some((RESUME_TOKEN, page.cursor.len())), page.cursor.len() + page.records_len);
    let bytes = message_head(&rest(page.target, page.as_of, false), token, following);
    Head::before_cursor::<StreamInstanceInformationResponse>(bytes)
}

/// All fields of a message but its records and its resume token.
fn rest(target: &TargetName, as_of: SystemTime, stale: bool) -> StreamInstanceInformationResponse {
    let (target, as_of) = (target.to_string(), Some(as_of.into()));
    StreamInstanceInformationResponse { target, as_of, stale, ..Default::default() }
}

/// What was asked of one target, and how far it was answered.
struct Walk {
    reader: Reader,
    query: Query,
    limit: usize,
    /// Where to go on after the last message.
    token: Bytes,
    /// Where the first page is noted, and what could not be reached.
    notes: CallNotes,
}

/// A failure, and the message that tells it.
type Failed = (Failure, Answer);

impl Walk {
    async fn next(&mut self) -> Result<Answer, Failure> {
        let page = self.reader.read(self.limit).await.map_err(|error| status::unreadable(&error, &self.query))?;
        self.notes.note(|noted| provenance::note(&page, noted));
        let Provenance { as_of, is_stale, .. } = page.provenance;
        self.token = page.cursor.clone();
        let fresh = page.rendered.as_ref().filter(|_| !is_stale);
        Ok(match fresh.and_then(|page| page.message::<StreamInstanceInformationResponse>()) {
            Some(message) => Answer::ready(message),
            None => Answer::new(page, Some(RESUME_TOKEN), &rest(self.query.target(), as_of, is_stale)),
        })
    }

    /// All messages, the last of which may tell why there are no more.
    fn messages(self) -> BoxStream<'static, Result<Answer, Failed>> {
        stream::unfold(Some(self), async |walk| {
            let mut walk = walk?;
            match walk.next().await {
                Ok(answer) => Some((Ok(answer), Some(walk).filter(|walk| !walk.reader.is_at_end()))),
                Err(failure) => {
                    walk.notes.note(|noted| noted.unreachable += 1);
                    let message = StreamInstanceInformationResponse {
                        target: walk.query.target().to_string(),
                        resume_token: String::from_utf8_lossy(&walk.token).into_owned(),
                        unreachable: Some(status::unreachable(&failure)),
                        ..Default::default()
                    };
                    Some((Err((failure, Answer::message(&message))), None))
                }
            }
        })
        .boxed()
    }
}
