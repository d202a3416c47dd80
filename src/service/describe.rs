use http::Response;

use super::{
    Serving,
    answer::Answer,
    caller::Caller,
    provenance, status,
    validate::{self, Constraints},
};
use crate::{
    grpc::{Body, Failure},
    model::{Freshness, Query},
    proto::DescribeInstanceInformationRequest,
};

/// The number of `DescribeInstanceInformationResponse.next_token`.
const NEXT_TOKEN: u32 = 2;

/// Answers one page.
pub(super) async fn describe(
    serving: &Serving,
    caller: &Caller<'_>,
    request: DescribeInstanceInformationRequest,
) -> Result<Response<Body>, Failure> {
    let Asked { query, freshness, limit, cursor } = validated(serving, caller, request)?;
    let mut reader = serving
        .listings
        .open(&query, freshness, cursor.as_deref())
        .map_err(|error| status::unopened(error, &query, "next_token"))?;
    let page = reader.read(limit).await.map_err(|error| status::unreadable(&error, &query))?;
    let provenance = page.provenance;
    caller.notes.note(|noted| provenance::note(&page, noted));
    let next_token = (!reader.is_at_end()).then_some(NEXT_TOKEN);
    let mut response = Answer::new(page, next_token, &()).into_http(None, caller.compression);
    provenance::write(&provenance, response.headers_mut());
    Ok(response)
}

struct Asked {
    query: Query,
    freshness: Freshness,
    limit: usize,
    cursor: Option<String>,
}

#[expect(deprecated, reason = "AWS deprecates its legacy filters, and takes them")]
fn validated(
    serving: &Serving,
    caller: &Caller<'_>,
    request: DescribeInstanceInformationRequest,
) -> Result<Asked, Failure> {
    caller.may_call()?;
    let target = validate::target(&request.target, serving.default_target.as_ref())?;
    let freshness = validate::freshness(request.read_options)?;
    caller.may_ask(target.as_str(), &request.target, freshness.max_age)?;
    caller.notes.note(|noted| noted.target = Some(target.clone()));
    let mut constraints = Constraints::new(serving.config.max_filters);
    let filters = constraints.filters(request.filters)?;
    let legacy = constraints.legacy_filters(request.instance_information_filter_list)?;
    let limit = constraints.max_results(request.max_results);
    constraints.finish()?;
    let query = validate::query(target, filters, legacy)?;
    Ok(Asked { query, freshness, limit, cursor: validate::next_token(request.next_token) })
}
