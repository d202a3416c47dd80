use futures_util::{StreamExt as _, stream};
use http::Response;
use tonic::{Status, body::Body};

use super::{
    answer::Answer,
    status,
    validate::{self, Constraints},
};
use crate::{
    listing::{Listings, Reader},
    model::Query,
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
    let mut pages = Pages { reader, query, limit };
    let first = pages.next().await?;
    let rest = stream::try_unfold(pages, async |mut pages| {
        if pages.reader.is_at_end() { Ok(None) } else { Ok(Some((pages.next().await?, pages))) }
    });
    Ok(first.into_http(Some(rest.boxed())))
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
        let rest = StreamInstanceInformationResponse {
            target: self.query.target().to_string(),
            as_of: Some(page.provenance.as_of.into()),
            stale: page.provenance.is_stale,
            ..Default::default()
        };
        Answer::new(page, Some(RESUME_TOKEN), &rest)
    }
}
