use super::ListingError;

/// The part that a failed fetch is the failure of, which is held off for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The walk's alone. It breaks off and nobody is held off: what AWS says of a token, or of one that a caller
    /// brought and may have made up, says nothing of the query, and is asked again each time.
    Walk,
    /// The query's.
    Query,
    /// The target's, whatever it is asked.
    Target,
}

impl Blame {
    /// Decides whose failure this is, of a walk that began with a caller's token or not, at a target whose breaker is
    /// open or not.
    pub(super) fn of(error: &ListingError, is_tail: bool, is_breaker_open: bool) -> Self {
        match error {
            ListingError::Expired(_) => Self::Walk,
            _ if is_tail && error.is_refusal() => Self::Walk,
            _ if error.is_throttle() || is_breaker_open => Self::Target,
            _ => Self::Query,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{AwsError, UpstreamError};

    fn upstream(of: fn(AwsError) -> UpstreamError) -> ListingError {
        ListingError::Upstream(of(AwsError::default()))
    }

    #[test]
    fn throttling_and_an_open_breaker_are_the_targets_and_any_other_failure_its_querys() {
        let unavailable = || ListingError::Upstream(UpstreamError::Unavailable(None, None));
        for is_tail in [false, true] {
            assert_eq!(Blame::of(&upstream(UpstreamError::Throttled), is_tail, false), Blame::Target);
            assert_eq!(Blame::of(&unavailable(), is_tail, true), Blame::Target);
            assert_eq!(Blame::of(&unavailable(), is_tail, false), Blame::Query);
            assert_eq!(Blame::of(&upstream(UpstreamError::AccessDenied), is_tail, false), Blame::Query);
        }
        assert_eq!(Blame::of(&upstream(UpstreamError::InvalidRequest), false, false), Blame::Query);
    }

    #[test]
    fn what_is_said_of_a_token_is_the_walks_alone() {
        let expired = ListingError::Expired(UpstreamError::InvalidToken(AwsError::default()));
        for is_breaker_open in [false, true] {
            assert_eq!(Blame::of(&expired, false, is_breaker_open), Blame::Walk);
            assert_eq!(Blame::of(&upstream(UpstreamError::InvalidRequest), true, is_breaker_open), Blame::Walk);
            assert_eq!(Blame::of(&upstream(UpstreamError::InvalidToken), true, is_breaker_open), Blame::Walk);
        }
    }
}
