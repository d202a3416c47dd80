use http::Response;

use super::{
    answer::Answer,
    call_context::CallContext,
    provenance,
    serving::Serving,
    status,
    validate::{self, Constraints},
};
use crate::{
    grpc::{Body, Failure, message_head},
    model::{Freshness, Query},
    proto::{DescribeInstanceInformationRequest, DescribeInstanceInformationResponse},
    read::{Head, WholePage},
};

/// The number of `DescribeInstanceInformationResponse.next_token`.
const NEXT_TOKEN: u32 = 2;

/// Answers one page.
pub(super) async fn describe(
    serving: &Serving,
    call: &CallContext<'_>,
    request: DescribeInstanceInformationRequest,
) -> Result<Response<Body>, Failure> {
    let Validated { query, freshness, limit, cursor } = validated(serving, call, request)?;
    let mut reader = serving
        .listings
        .open(&query, freshness, cursor.as_deref())
        .map_err(|error| status::open_error(error, &query, "next_token"))?;
    let page = reader.read(limit).await.map_err(|error| status::read_error(&error, &query))?;
    let provenance = page.provenance;
    call.notes.note(|noted| provenance::note(&page, noted));
    let answer = match page.rendered.as_ref().and_then(|page| page.message::<DescribeInstanceInformationResponse>()) {
        Some(message) => Answer::ready(message),
        None => Answer::new(page, (!reader.is_at_end()).then_some(NEXT_TOKEN), &()),
    };
    let mut response = answer.into_http(None, call.compression);
    provenance::write(&provenance, response.headers_mut());
    Ok(response)
}

/// Writes what goes before a whole page that is sent as it stands.
pub(super) fn head(page: &WholePage<'_>) -> Head {
    if page.is_last {
        return Head::before_records::<DescribeInstanceInformationResponse>(message_head(&(), None, page.records_len));
    }
    let token = Some((NEXT_TOKEN, page.cursor.len()));
    let following = page.cursor.len() + page.records_len;
    Head::before_cursor::<DescribeInstanceInformationResponse>(message_head(&(), token, following))
}

struct Validated {
    query: Query,
    freshness: Freshness,
    limit: usize,
    cursor: Option<String>,
}

#[expect(deprecated, reason = "AWS deprecates its legacy filters, and takes them")]
fn validated(
    serving: &Serving,
    call: &CallContext<'_>,
    request: DescribeInstanceInformationRequest,
) -> Result<Validated, Failure> {
    let freshness = validate::freshness(request.read_options)?;
    let target = call.target(&request.target, freshness.max_age)?;
    let mut constraints = Constraints::new(serving.config.max_filters);
    let filters = constraints.filters(request.filters)?;
    let legacy = constraints.legacy_filters(request.instance_information_filter_list)?;
    let limit = constraints.max_results(request.max_results);
    constraints.finish()?;
    let query = validate::query(target, filters, legacy)?;
    Ok(Validated { query, freshness, limit, cursor: validate::next_token(request.next_token) })
}
