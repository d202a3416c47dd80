use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};

use super::{Config, ListingError, Metrics, hold_off::HoldOff, lock};
use crate::{
    model::{Query, TargetName},
    source::{Identity, Pace, Source, UpstreamError},
};

/// A target, as listings of its queries share it.
#[derive(Debug)]
pub struct Target {
    pub(super) name: TargetName,
    identity: Identity,
    pub(super) source: Arc<dyn Source>,
    /// How long its listings are fresh for callers who do not say.
    pub(super) ttl: Duration,
    /// How far past that they may be given, marked stale, to callers who do not say.
    pub(super) max_stale: Duration,
    /// Throttling concerns all queries of the target, and so does a breaker that is open.
    pub(super) hold_off: HoldOff,
    /// Wakes the walks that are queued: the target is held off.
    pub(super) held: Notify,
    pub(super) metrics: Metrics,
    seen: Mutex<Seen>,
}

/// The state of a target, by the last answer or failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetState {
    /// It was not asked yet.
    #[default]
    Unused,
    /// It answers.
    Ready,
    /// AWS throttles it, and is left alone for a while.
    Throttled,
    /// AWS failed or could not be reached when it was asked last.
    Unavailable,
    /// It did so several times in a row, and is left alone for a while.
    BreakerOpen,
    /// Its credentials are denied, expired or absent.
    Denied,
}

impl TargetState {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Unused, Self::Ready, Self::Throttled, Self::Unavailable, Self::BreakerOpen, Self::Denied];

    /// Returns the name of the state in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Ready => "ready",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::BreakerOpen => "breaker_open",
            Self::Denied => "denied",
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    state: TargetState,
    answered: Option<SystemTime>,
    /// How often in a row it was unavailable.
    failures: u32,
    last_error: Option<LastError>,
}

/// The last failure of a target.
#[derive(Debug, Clone)]
pub struct LastError {
    /// When it was known.
    pub at: SystemTime,
    /// What it was.
    pub error: Arc<ListingError>,
}

impl Target {
    /// Builds a target that `source` is asked for, with what holds for callers who do not say how fresh an answer must
    /// be.
    pub fn new(
        name: TargetName,
        identity: Identity,
        source: Arc<dyn Source>,
        ttl: Duration,
        max_stale: Duration,
    ) -> Self {
        Self {
            metrics: Metrics::new(&name),
            name,
            identity,
            source,
            ttl,
            max_stale,
            hold_off: HoldOff::default(),
            held: Notify::new(),
            seen: Mutex::default(),
        }
    }

    /// Returns the name that callers give it.
    pub fn name(&self) -> &TargetName {
        &self.name
    }

    /// Returns sixteen bytes that stand for a query of this target: cursors of it carry them, in every process that is
    /// configured alike.
    pub fn fingerprint(&self, query: &Query) -> [u8; 16] {
        query.fingerprint(self.identity.scope)
    }

    /// Returns whose credentials ask, for people.
    pub fn signed_by(&self) -> &str {
        &self.identity.signed_by
    }

    /// Returns the AWS region.
    pub fn region(&self) -> &str {
        &self.identity.region
    }

    /// Returns how the target is now.
    pub fn state(&self) -> TargetState {
        let now = Instant::now();
        match (self.hold_off.held(now), lock(&self.seen).state) {
            (Some(held), _) if held.to_read_error(now).error.is_throttle() => TargetState::Throttled,
            (Some(_), _) => TargetState::BreakerOpen,
            // AWS failed, and the fetch that knows it goes on for a while.
            (None, _) if self.pace().retrying > 0 => TargetState::Unavailable,
            (None, TargetState::Throttled) => TargetState::Ready,
            (None, state) => state,
        }
    }

    /// Returns how fast the target is asked.
    pub fn pace(&self) -> Pace {
        self.source.pace()
    }

    /// Returns what its walks and readers did so far.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns its last failure, however long ago; refused requests are none.
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.seen).last_error.clone()
    }

    /// Returns when AWS last answered, if it was only to refuse a request.
    pub fn last_answered(&self) -> Option<SystemTime> {
        lock(&self.seen).answered
    }

    /// Notes an answer.
    pub(super) fn answered(&self, now: SystemTime) {
        let seen = &mut *lock(&self.seen);
        (seen.state, seen.answered, seen.failures) = (TargetState::Ready, Some(now), 0);
    }

    /// Returns whether it failed so often in a row that it is not this query's failure any more, but the target's.
    pub(super) fn is_broken(&self, config: &Config) -> bool {
        lock(&self.seen).failures >= config.breaker_failures
    }

    /// Notes a failure.
    pub(super) fn failed(&self, error: &Arc<ListingError>, now: SystemTime) {
        let (state, is_answer) = match &**error {
            ListingError::Upstream(UpstreamError::Throttled(_) | UpstreamError::CredentialsThrottled(_)) => {
                (TargetState::Throttled, true)
            }
            ListingError::Upstream(
                UpstreamError::AccessDenied(_) | UpstreamError::Credentials(..) | UpstreamError::ClockSkew(..),
            ) => (TargetState::Denied, false),
            ListingError::Upstream(
                UpstreamError::Unavailable(..)
                | UpstreamError::CredentialsUnavailable(..)
                | UpstreamError::Misconfigured(_)
                | UpstreamError::Protocol(_),
            ) => (TargetState::Unavailable, false),
            ListingError::Upstream(UpstreamError::Overloaded) => return,
            _ => (TargetState::Ready, true),
        };
        let seen = &mut *lock(&self.seen);
        seen.failures = if state == TargetState::Unavailable { seen.failures + 1 } else { 0 };
        seen.state = state;
        if state != TargetState::Ready {
            seen.last_error = Some(LastError { at: now, error: Arc::clone(error) });
        }
        seen.answered = seen.answered.filter(|_| !is_answer).or(is_answer.then_some(now));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::{
        model::Scope,
        source::{AwsError, FetchError, Request, UpstreamPage},
    };

    #[derive(Debug)]
    struct Nowhere;

    impl Source for Nowhere {
        fn page<'a>(&'a self, _: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
            unreachable!("nobody asks")
        }
    }

    #[test]
    fn a_target_is_as_it_last_answered_or_failed() {
        let identity = Identity { region: "nowhere".to_owned(), scope: Scope::of([]), signed_by: String::new() };
        let name = TargetName::default_target();
        let source = Arc::new(Nowhere);
        let target = Target::new(name, identity, source, Duration::ZERO, Duration::ZERO);
        assert_eq!((target.state(), target.last_answered()), (TargetState::Unused, None));
        let now = SystemTime::now();
        let aws = AwsError::default;
        for (error, state, answered) in [
            (UpstreamError::AccessDenied(aws()), TargetState::Denied, None),
            (UpstreamError::Credentials(None, None), TargetState::Denied, None),
            (UpstreamError::Unavailable(None, None), TargetState::Unavailable, None),
            (UpstreamError::InvalidRequest(aws()), TargetState::Ready, Some(now)),
            (UpstreamError::Unavailable(None, None), TargetState::Unavailable, Some(now)),
            (UpstreamError::Throttled(aws()), TargetState::Ready, Some(now)),
        ] {
            target.failed(&Arc::new(ListingError::Upstream(error)), now);
            assert_eq!((target.state(), target.last_answered()), (state, answered));
        }
        let throttled = Arc::new(ListingError::Upstream(UpstreamError::Throttled(aws())));
        target.hold_off.fail(Arc::clone(&throttled), Instant::now(), Instant::now(), &Config::default());
        target.failed(&throttled, now);
        assert_eq!(target.state(), TargetState::Throttled, "while it is held off");
        target.hold_off.succeed(Instant::now());
        target.answered(now);
        assert_eq!(target.state(), TargetState::Ready);
    }
}
