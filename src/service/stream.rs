use std::time::SystemTime;

use futures_util::{StreamExt as _, stream};
use http::Response;
use tonic::{Status, body::Body};

use super::{
    answer::{self, Answer},
    status,
    validate::{self, Constraints},
};
use crate::{
    listing::{Listings, Provenance, Reader},
    model::{Query, Records, TargetName},
    proto::{StreamInstanceInformationRequest, StreamInstanceInformationResponse},
};

/// The number of `StreamInstanceInformationResponse.resume_token`.
const RESUME_TOKEN: u32 = 19;

/// Answers page after page, the first of which is awaited: an error before it must come without headers.
pub(super) async fn stream(
    listings: &Listings,
    request: StreamInstanceInformationRequest,
) -> Result<Response<Body>, Status> {
    let limit = validate::page_size(request.page_size)?;
    let freshness = validate::freshness(request.read_options)?;
    let mut constraints = Constraints::default();
    let filters = constraints.filters(request.filters);
    constraints.finish()?;
    let query = validate::query(validate::targets(&request.targets)?, filters, Vec::new())?;
    let (field, token) = validate::resume_token(request.resume_tokens)?.unzip();
    let reader = listings
        .open(&query, freshness, token.as_deref())
        .map_err(|error| status::invalid_cursor(error, &field.unwrap_or_default()))?
        .reading_ahead();
    // In a box, since it moves in and out of the stream with every message.
    let mut pages = Box::new(Pages { reader, query, limit });
    let first = pages.next().await?;
    let rest = stream::try_unfold(pages, async |mut pages| {
        if pages.reader.is_at_end() { Ok(None) } else { Ok(Some((pages.next().await?, pages))) }
    });
    Ok(first.into_http(Some(rest.boxed())))
}

/// What goes before the records of a page that is sent to anyone as it stands: fresh, and with the cursor behind it.
pub fn page_head(target: &TargetName, as_of: SystemTime, cursor: &str, records: &Records) -> Vec<u8> {
    let following = cursor.len() + records.slice(0..records.len()).len();
    let mut head = answer::message_head(&rest(target, as_of, false), Some((RESUME_TOKEN, cursor.len())), following);
    head.extend_from_slice(cursor.as_bytes());
    head
}

/// All fields of a message but its records and its resume token.
fn rest(target: &TargetName, as_of: SystemTime, stale: bool) -> StreamInstanceInformationResponse {
    let (target, as_of) = (target.to_string(), Some(as_of.into()));
    StreamInstanceInformationResponse { target, as_of, stale, ..Default::default() }
}

/// The messages of one target.
struct Pages {
    reader: Reader,
    query: Query,
    limit: usize,
}

impl Pages {
    async fn next(&mut self) -> Result<Answer, Status> {
        let page = self.reader.read(self.limit).await.map_err(|error| status::unreadable(&error, &self.query))?;
        let Provenance { as_of, is_stale, .. } = page.provenance;
        if page.head_len > 0 && !is_stale {
            return Ok(Answer::ready(page));
        }
        Ok(Answer::new(page, Some(RESUME_TOKEN), &rest(self.query.target(), as_of, is_stale)))
    }
}
