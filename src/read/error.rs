use std::{sync::Arc, time::Duration};

use crate::source::UpstreamError;

/// A listing that could not be read, or not further.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// AWS no longer takes the token that it gave this walk: the caller must ask again from the start.
    #[error("AWS let the listing's token expire")]
    Expired(#[source] UpstreamError),
    /// AWS gave a token twice: the walk would go round for ever.
    #[error("AWS repeated a token of the walk")]
    RepeatedToken,
    /// The walk has more pages than any fleet should.
    #[error("the walk is longer than {0} upstream pages")]
    PageCap(u32),
    /// A fetch failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// AWS failed for the target again and again, whatever was asked, and the last time said how long to wait, perhaps.
    #[error("the target's breaker is open")]
    BreakerOpen(Option<Duration>),
    /// The memory of all listings ran out, and this one had the slowest reader.
    #[error("the listing was given up for want of memory")]
    Evicted,
    /// The reader took nothing for too long.
    #[error("the reader took nothing for too long")]
    Stalled,
    /// The task that walked ended before its fetch did.
    #[error("the walk was interrupted")]
    Interrupted,
}

impl ListingError {
    /// Returns how long AWS says to wait.
    pub(super) fn advice(&self) -> Option<Duration> {
        match self {
            Self::Upstream(error) => error.aws()?.retry_after,
            Self::BreakerOpen(advice) => *advice,
            _ => None,
        }
    }

    /// Returns whether the request alone is at fault: waiting does not help, and neither does older data.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::InvalidRequest(_) | UpstreamError::InvalidToken(_)))
    }

    /// Returns whether a stream that has begun may wait until the failure is over.
    pub(super) fn is_ridden_out(&self) -> bool {
        self.is_throttle() || matches!(self, Self::Upstream(UpstreamError::Overloaded))
    }

    /// Returns whether all queries of the target are concerned.
    pub(super) fn is_throttle(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::Throttled(_) | UpstreamError::CredentialsThrottled(_)))
    }
}

/// A failure as one reader meets it; all who wait for the same page meet the same.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the listing could not be read")]
pub struct ReadError {
    /// What failed.
    #[source]
    pub error: Arc<ListingError>,
    /// How long upstream will not be asked again; absent where waiting is of no use.
    pub retry_after: Option<Duration>,
    /// Whether its reader waited for a fetch that failed, rather than for none.
    pub has_waited: bool,
}

impl From<ListingError> for ReadError {
    fn from(error: ListingError) -> Self {
        Self { error: Arc::new(error), retry_after: None, has_waited: false }
    }
}
