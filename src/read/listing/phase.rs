//! The life of a listing, as a state and a pure step.

use std::sync::Arc;

use tokio::time::Instant;

use super::ListingError;

/// The part of its life that a listing is in.
#[derive(Debug, Clone, Default)]
pub(super) enum Phase {
    /// Nobody walks. The walk begins, or goes on, when a reader wants more and upstream may be asked.
    #[default]
    Idle,
    /// A task walks, and waits until it may send the next fetch.
    Queued,
    /// A task walks, and its fetch was sent then.
    Fetching(Instant),
    /// All records came.
    Complete,
    /// The listing broke off for good.
    Broken(Arc<ListingError>),
}

/// Something that happens to a listing.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// More is wanted than there is, and a task is started for it.
    Wanted,
    /// A fetch was sent at this time.
    Sent(Instant),
    /// A page came, and perhaps it was the last one.
    Arrived { is_last: bool },
    /// The fetch failed, or was not admitted. Another may succeed.
    Failed,
    /// Nobody wants more than there is, or upstream must not be asked.
    Paused,
    /// The walk itself is wrong: no other fetch would mend it.
    BrokeOff(Arc<ListingError>),
    /// The records were given up for want of memory.
    Evicted,
}

impl Phase {
    /// Returns the phase after an event. One that does not concern the phase changes nothing: a page that comes after
    /// the eviction, say.
    #[must_use]
    pub(super) fn step(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Evicted) => Self::Broken(ListingError::Evicted.into()),
            (Self::Idle, Event::Wanted) | (Self::Fetching(_), Event::Arrived { is_last: false }) => Self::Queued,
            (Self::Queued, Event::Sent(at)) => Self::Fetching(at),
            (Self::Fetching(_), Event::Arrived { is_last: true }) => Self::Complete,
            (Self::Queued | Self::Fetching(_), Event::Failed | Event::Paused) => Self::Idle,
            (Self::Idle | Self::Queued | Self::Fetching(_), Event::BrokeOff(error)) => Self::Broken(error),
            (phase, _) => phase,
        }
    }

    /// Returns whether a task walks.
    pub(super) fn is_advancing(&self) -> bool {
        matches!(self, Self::Queued | Self::Fetching(_))
    }

    /// Returns whether more may come.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Complete | Self::Broken(_))
    }

    /// Returns whether the records were given up.
    pub(super) fn is_evicted(&self) -> bool {
        matches!(self, Self::Broken(error) if matches!(**error, ListingError::Evicted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(phase: &Phase) -> &'static str {
        match phase {
            Phase::Idle => "idle",
            Phase::Queued => "queued",
            Phase::Fetching(_) => "fetching",
            Phase::Complete => "complete",
            Phase::Broken(error) if matches!(**error, ListingError::Evicted) => "evicted",
            Phase::Broken(_) => "broken",
        }
    }

    /// Every phase with every event: the phase after it.
    #[test]
    fn each_event_leads_from_each_phase_to_where_the_table_says() {
        let at = Instant::now();
        let error = || Arc::new(ListingError::RepeatedToken);
        let phases = || {
            let broken = [Phase::Broken(error()), Phase::Broken(ListingError::Evicted.into())];
            [Phase::Idle, Phase::Queued, Phase::Fetching(at), Phase::Complete].into_iter().chain(broken)
        };
        let same = ["idle", "queued", "fetching", "complete", "broken", "evicted"];
        for (event, expected) in [
            (Event::Wanted, ["queued", "queued", "fetching", "complete", "broken", "evicted"]),
            (Event::Sent(at), ["idle", "fetching", "fetching", "complete", "broken", "evicted"]),
            (Event::Arrived { is_last: false }, ["idle", "queued", "queued", "complete", "broken", "evicted"]),
            (Event::Arrived { is_last: true }, ["idle", "queued", "complete", "complete", "broken", "evicted"]),
            (Event::Failed, ["idle", "idle", "idle", "complete", "broken", "evicted"]),
            (Event::Paused, ["idle", "idle", "idle", "complete", "broken", "evicted"]),
            (Event::BrokeOff(error()), ["broken", "broken", "broken", "complete", "broken", "evicted"]),
            (Event::Evicted, ["evicted"; 6]),
        ] {
            let after: Vec<_> = phases().map(|phase| name(&phase.step(event.clone()))).collect();
            assert_eq!(after, expected, "{event:?} after {same:?}");
        }
    }

    #[test]
    fn a_fetch_counts_from_when_it_was_sent() {
        let sent = Instant::now();
        let fetching = Phase::Idle.step(Event::Wanted).step(Event::Sent(sent));
        assert!(matches!(fetching, Phase::Fetching(at) if at == sent));
        assert!(fetching.is_advancing() && fetching.is_open());
    }
}
