//! After a failure upstream is left alone for a while: the more often it failed in a row, the longer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::{Config, ListingError, ReadError, lock};
use crate::source::MAX_ADVICE;

/// The time in which upstream is not asked, and the error that stands for an answer meanwhile.
#[derive(Debug, Default)]
pub(super) struct HoldOff(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How long the last failure without advice held; zero after a success.
    delay: Duration,
    last: Option<Held>,
    /// When the one fetch was sent that finds out whether the failure is over.
    probe: Option<Instant>,
}

/// An error that stands for an answer, and until when.
#[derive(Debug, Clone)]
pub(super) struct Held {
    error: Arc<ListingError>,
    /// When it was known first.
    failed: Instant,
    until: Instant,
    /// While a fetch finds out whether it is over: when to come back and see.
    probed_every: Option<Duration>,
}

impl Held {
    /// Returns the error as a reader meets it now.
    pub(super) fn to_read_error(&self, now: Instant) -> ReadError {
        let left = self.until.saturating_duration_since(now);
        let left = self.probed_every.map_or(left, |often| often.min(left));
        let retry_after = (!self.error.is_refusal()).then_some(left);
        ReadError { error: Arc::clone(&self.error), retry_after, has_waited: false }
    }

    /// Returns the same with another error: a fetch that failed by itself says why.
    pub(super) fn with_error(self, error: Arc<ListingError>) -> Self {
        Self { error, ..self }
    }
}

impl HoldOff {
    /// Returns the error that stands for an answer now, if any.
    pub(super) fn held(&self, now: Instant) -> Option<Held> {
        lock(&self.0).last.clone().filter(|held| now < held.until)
    }

    /// Admits a fetch that is to be sent now, unless an error stands for an answer; returns whether it is admitted.
    /// After a failure the fetch finds out whether that is over. Until it did the others get the error, though for no
    /// longer than the longest hold-off, in case it never does.
    ///
    /// One lock covers the look and the entry: between two locks another fetch may fail, and the hold-off of that
    /// failure would be taken for one that is over, and stretched to the longest.
    pub(super) fn try_enter(&self, sent: Instant, config: &Config) -> bool {
        let state = &mut *lock(&self.0);
        let Some(last) = &mut state.last else { return true };
        if sent < last.until {
            return false;
        }
        last.until = sent + config.max_hold_off.max(config.hold_off);
        last.probed_every = Some(config.hold_off);
        state.probe = Some(sent);
        true
    }

    /// Notes that a fetch sent at `sent` says nothing of this failure: the next may.
    pub(super) fn leave(&self, sent: Instant) {
        let state = &mut *lock(&self.0);
        if let (Some(_), Some(last)) = (state.probe.take_if(|probe| *probe == sent), &mut state.last) {
            (last.until, last.probed_every) = (sent, None);
        }
    }

    /// Notes that a fetch sent at `sent` failed, and returns what stands for an answer now. Fetches that were sent
    /// before an earlier failure was known are one failure with it.
    pub(super) fn fail(&self, error: Arc<ListingError>, sent: Instant, now: Instant, config: &Config) -> Held {
        let mut state = lock(&self.0);
        let before = state.last.take().filter(|held| sent < held.failed);
        let time = match error.advice() {
            Some(advice) => advice.min(MAX_ADVICE),
            None if error.is_refusal() => config.negative_ttl,
            None => {
                if before.is_none() || state.delay.is_zero() {
                    state.delay = (state.delay * 2).clamp(config.hold_off, config.max_hold_off.max(config.hold_off));
                }
                config.jittered(state.delay)
            }
        };
        let held = if let Some(before) = before {
            Held { error, until: before.until.max(now + time), ..before }
        } else {
            state.probe = None;
            Held { error, failed: now, until: now + time, probed_every: None }
        };
        state.last.insert(held).clone()
    }

    /// Notes that a fetch sent at `sent` succeeded. It says nothing of a failure that was known only later.
    pub(super) fn succeed(&self, sent: Instant) {
        let mut state = lock(&self.0);
        if state.last.as_ref().is_none_or(|held| held.failed <= sent) {
            *state = State::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::source::{AwsError, UpstreamError};

    const SECOND: Duration = Duration::from_secs(1);

    fn throttle(retry_after: Option<Duration>) -> Arc<ListingError> {
        Arc::new(ListingError::Upstream(UpstreamError::Throttled(AwsError { retry_after, ..AwsError::default() })))
    }

    fn fail(hold_off: &HoldOff, error: &Arc<ListingError>, sent: Instant) {
        let config = Config { jitter_percent: 0, ..Config::default() };
        hold_off.fail(Arc::clone(error), sent, Instant::now(), &config);
    }

    fn left(hold_off: &HoldOff) -> Option<Duration> {
        hold_off.held(Instant::now()).and_then(|held| held.to_read_error(Instant::now()).retry_after)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_off_doubles_to_its_most_and_begins_anew_after_a_success() {
        let hold_off = HoldOff::default();
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(left(&hold_off), None);
            fail(&hold_off, &throttle(None), Instant::now());
            assert_eq!(left(&hold_off), Some(seconds * SECOND));
            advance(seconds * SECOND).await;
        }
        hold_off.succeed(Instant::now());
        fail(&hold_off, &throttle(None), Instant::now());
        assert_eq!(left(&hold_off), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn advice_comes_before_the_hold_off_and_what_remains_is_told() {
        let hold_off = HoldOff::default();
        fail(&hold_off, &throttle(Some(7 * SECOND)), Instant::now());
        advance(2 * SECOND).await;
        assert_eq!(left(&hold_off), Some(5 * SECOND));
        advance(5 * SECOND).await;
        assert_eq!(left(&hold_off), None);
        fail(&hold_off, &throttle(Some(Duration::MAX)), Instant::now());
        assert_eq!(left(&hold_off), Some(MAX_ADVICE));
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_that_fail_together_are_one_failure() {
        let hold_off = HoldOff::default();
        let sent = Instant::now();
        advance(SECOND).await;
        for _ in 0..5 {
            fail(&hold_off, &throttle(None), sent);
        }
        assert_eq!(left(&hold_off), Some(SECOND));
        fail(&hold_off, &throttle(Some(SECOND / 2)), sent);
        assert_eq!(left(&hold_off), Some(SECOND), "nothing said later makes it shorter");
        hold_off.succeed(sent);
        assert_eq!(left(&hold_off), Some(SECOND), "a success says nothing of what came after it was sent");
        let hold_off = HoldOff::default();
        fail(&hold_off, &throttle(Some(SECOND / 2)), sent);
        fail(&hold_off, &throttle(None), sent);
        assert_eq!(left(&hold_off), Some(SECOND), "not for nothing where the first had advice");
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetch_finds_out_whether_it_is_over_and_the_others_wait_for_that() {
        let config = Config { jitter_percent: 0, ..Config::default() };
        let hold_off = HoldOff::default();
        assert!(hold_off.try_enter(Instant::now(), &config));
        assert_eq!(left(&hold_off), None, "nothing has failed yet");
        fail(&hold_off, &throttle(None), Instant::now());
        advance(SECOND).await;
        let probe = Instant::now();
        assert!(hold_off.try_enter(probe, &config));
        advance(SECOND / 4).await;
        assert!(!hold_off.try_enter(Instant::now(), &config));
        assert_eq!(left(&hold_off), Some(SECOND), "come back and see");
        advance(9 * SECOND).await;
        assert_eq!(left(&hold_off), Some(SECOND), "however long it takes");
        fail(&hold_off, &throttle(None), probe);
        assert_eq!(left(&hold_off), Some(2 * SECOND), "it is not over, and that is the second failure");
        advance(2 * SECOND).await;
        assert!(hold_off.try_enter(Instant::now(), &config));
        advance(30 * SECOND).await;
        assert_eq!(left(&hold_off), None, "a fetch that never ends is not waited for longer");
        let probe = Instant::now();
        assert!(hold_off.try_enter(probe, &config));
        hold_off.leave(probe);
        assert_eq!(left(&hold_off), None, "nor is one that failed for another reason");
        assert!(hold_off.try_enter(probe, &config));
        hold_off.succeed(probe);
        assert_eq!(left(&hold_off), None, "it is over");
        fail(&hold_off, &throttle(None), Instant::now());
        assert_eq!(left(&hold_off), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_it_held_off_does_not_prolong_it() {
        let config = Config { jitter_percent: 0, ..Config::default() };
        let hold_off = HoldOff::default();
        fail(&hold_off, &throttle(None), Instant::now());
        assert!(!hold_off.try_enter(Instant::now(), &config));
        assert_eq!(left(&hold_off), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stands_for_a_while_and_waiting_is_of_no_use() {
        let hold_off = HoldOff::default();
        for _ in 0..2 {
            let refusal = Arc::new(ListingError::Upstream(UpstreamError::InvalidRequest(AwsError::default())));
            fail(&hold_off, &refusal, Instant::now());
            advance(Duration::from_millis(4999)).await;
            assert!(hold_off.held(Instant::now()).unwrap().to_read_error(Instant::now()).retry_after.is_none());
            advance(Duration::from_millis(1)).await;
            assert!(hold_off.held(Instant::now()).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_do_not_hold_off_in_step() {
        let config = Config::default();
        let delays: Vec<_> = (0..50)
            .map(|_| {
                let hold_off = HoldOff::default();
                hold_off.fail(throttle(None), Instant::now(), Instant::now(), &config);
                left(&hold_off).unwrap()
            })
            .collect();
        assert!(delays.iter().all(|delay| (900..=1100).contains(&delay.as_millis())));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
