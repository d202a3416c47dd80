use tonic::Status;

use super::{
    answer::Answer,
    status,
    validate::{self, Constraints},
};
use crate::{
    listing::Listings,
    model::Query,
    proto::{DescribeInstanceInformationRequest, DescribeInstanceInformationResponse},
};

/// Answers one page.
pub(super) async fn describe(
    listings: &Listings,
    request: DescribeInstanceInformationRequest,
) -> Result<Answer, Status> {
    let (query, limit, cursor) = validated(request)?;
    let mut reader =
        listings.open(&query, cursor.as_deref()).map_err(|error| status::invalid_cursor(error, "next_token"))?;
    let page = reader.read(limit).await.map_err(|error| status::unreadable(&error, &query))?;
    let next_token = (!reader.is_at_end()).then(|| reader.cursor());
    Ok(Answer::new(page.records, &DescribeInstanceInformationResponse { next_token, ..Default::default() }))
}

#[expect(deprecated, reason = "AWS deprecates its legacy filters, and takes them")]
fn validated(request: DescribeInstanceInformationRequest) -> Result<(Query, usize, Option<String>), Status> {
    let mut constraints = Constraints::default();
    let filters = constraints.filters(request.filters);
    let legacy = constraints.legacy_filters(request.instance_information_filter_list);
    let limit = constraints.max_results(request.max_results);
    constraints.finish()?;
    validate::read_options(request.read_options)?;
    let query = validate::query(validate::target(&request.target)?, filters, legacy)?;
    Ok((query, limit, validate::next_token(request.next_token)))
}
