use std::{collections::HashSet, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{ListingError, cursor::Place};
use crate::{
    model::Filters,
    upstream::{Upstream, UpstreamError, UpstreamPage},
};

/// The walk from upstream page to upstream page. Our own, not the SDK's paginator: that one takes a repeated token for
/// the end.
#[derive(Debug)]
pub(super) struct Walk {
    upstream: Arc<dyn Upstream>,
    filters: Filters,
    page_cap: u32,
    /// The digests of the tokens followed so far, to notice one that comes again.
    followed: HashSet<[u8; 32]>,
}

impl Walk {
    pub(super) fn new(upstream: Arc<dyn Upstream>, filters: Filters, page_cap: u32) -> Self {
        Self { upstream, filters, page_cap, followed: HashSet::new() }
    }

    /// Fetches the upstream page of `place`, which may be empty though more follow.
    pub(super) async fn fetch(&mut self, place: &Place) -> Result<UpstreamPage, ListingError> {
        if place.pages_before >= self.page_cap {
            return Err(ListingError::PageCap(self.page_cap));
        }
        let page = self.upstream.fetch(&self.filters, place.token.as_deref()).await.map_err(|error| match error {
            UpstreamError::InvalidRequest(aws) if aws.is_invalid_next_token() => {
                ListingError::Expired(UpstreamError::InvalidRequest(aws))
            }
            error => ListingError::Upstream(error),
        })?;
        self.followed.extend(place.token.as_deref().map(digest));
        match &page.next_token {
            Some(next) if self.followed.contains(&digest(next)) => Err(ListingError::RepeatedToken),
            _ => Ok(page),
        }
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
