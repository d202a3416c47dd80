use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

use super::{
    credential::InvalidCredential,
    stage::{Stage, Stages},
};
use crate::grpc::{Failure, Reason};

/// When callers may retry a call that a drain has ended: at once, elsewhere.
const DRAINING_RETRY: Duration = Duration::from_millis(100);
/// When callers may retry a call whose peer read nothing.
const STALLED_RETRY: Duration = Duration::from_secs(1);
/// How long a call may take to end by its status. hyper does not poll the body while the peer's window is closed.
const GRACE: Duration = Duration::from_secs(1);
/// How long the answer to a request that is no call may take to be sent.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A call that is given up after this time has cost its caller something, too.
const PREMATURE: Duration = Duration::from_secs(1);

/// The end of one call: when the call must end, and how much of the answer the peer has read. The layers of the call
/// write this; the task that runs the call resets the stream where hyper, waiting for the peer's window, polls no
/// layer.
#[derive(Debug)]
pub(super) struct CallEnd {
    begun: Instant,
    bounds: OnceLock<Bounds>,
    has_answered: AtomicBool,
    /// When the peer was offered the bytes that it has not read yet, in nanoseconds from `begun`, plus one; 0 if there
    /// are none.
    offered: AtomicU64,
    /// Why the stream was reset.
    reset: OnceLock<Failure>,
}

/// The bounds of a call, of which the first ends it.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) at: Instant,
    pub(super) why: Why,
    pub(super) stages: Stages,
    pub(super) stall_timeout: Duration,
}

/// The bound that a call has reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    Deadline(Duration),
    Maximum(Duration),
    Credential,
}

impl CallEnd {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            bounds: OnceLock::new(),
            has_answered: AtomicBool::new(false),
            offered: AtomicU64::new(0),
            reset: OnceLock::new(),
        }
    }

    /// Sets the bounds of the call, once.
    pub(super) fn bound(&self, bounds: Bounds) {
        let _twice = self.bounds.set(bounds);
    }

    /// Returns whether the call can be overdue: it was admitted, or answered without being admitted.
    pub(super) fn can_be_overdue(&self) -> bool {
        self.bounds.get().is_some() || self.has_answered.load(Relaxed)
    }

    /// Notes that the head of the answer is there.
    pub(super) fn answered(&self) {
        self.has_answered.store(true, Relaxed);
    }

    /// Notes that the peer is offered bytes.
    pub(super) fn offer(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.begun).as_nanos();
        self.offered.store(u64::try_from(nanos).map_or(u64::MAX, |nanos| nanos.saturating_add(1)), Relaxed);
    }

    /// Notes that the peer has read all bytes that there were.
    pub(super) fn nothing_to_offer(&self) {
        self.offered.store(0, Relaxed);
    }

    /// Returns the failure with which the call ends, if it ends now.
    pub(super) fn failure(&self, now: Instant) -> Option<Failure> {
        let bounds = self.bounds.get()?;
        if bounds.stages.has_reached(Stage::Ending) {
            let message = "the gateway is going away: call another one, a stream from its last resume token on";
            return Some(Failure::new(Reason::Draining, message).retry_after(Some(DRAINING_RETRY)));
        }
        (now >= bounds.at).then(|| match bounds.why {
            Why::Deadline(after) => passed("the caller's deadline", after),
            Why::Maximum(after) => passed("the gateway's own limit", after),
            Why::Credential => InvalidCredential::Expired.into(),
        })
    }

    /// Waits until the call must end by its status. Returns the failure that it ends with.
    pub(super) async fn due(&self) -> Failure {
        let Some(bounds) = self.bounds.get() else { return std::future::pending().await };
        loop {
            tokio::select! {
                () = bounds.stages.reached(Stage::Ending) => {}
                () = time::sleep_until(bounds.at) => {}
            }
            if let Some(failure) = self.failure(Instant::now()) {
                return failure;
            }
        }
    }

    /// Waits until the stream must be reset: the peer has read nothing for too long, or the call should have ended by
    /// its status a moment ago.
    pub(super) async fn overdue(&self) {
        let Some(bounds) = self.bounds.get() else { return time::sleep(REFUSAL_TIMEOUT).await };
        let mut ending = std::pin::pin!(bounds.stages.reached(Stage::Ending));
        let mut last = bounds.at + GRACE;
        let mut is_ending = false;
        loop {
            let now = Instant::now();
            let offered = self.offered();
            let stalls = offered.map(|offered| offered + bounds.stall_timeout);
            let is_stalled = stalls.is_some_and(|stalls| stalls <= now);
            if is_stalled || last <= now {
                let failure = if is_stalled { None } else { self.failure(now) };
                let _twice = self.reset.set(failure.unwrap_or_else(stalled));
                return;
            }
            let next = stalls.unwrap_or(now + bounds.stall_timeout.max(GRACE));
            tokio::select! {
                () = time::sleep_until(next.min(last)) => {}
                () = &mut ending, if !is_ending => {
                    is_ending = true;
                    last = last.min(Instant::now() + GRACE);
                }
            }
        }
    }

    /// Returns the failure of a call whose stream was reset by the gateway.
    pub(super) fn reset(&self) -> Option<&Failure> {
        self.reset.get()
    }

    /// Returns whether a caller who gives the call up now does so before anybody could have answered it: the call has
    /// no answer, is young, and is not near its deadline.
    ///
    /// No deadline is too short to excuse its caller: a client with deadlines of a few milliseconds keeps its
    /// connection while AWS is slow. Attackers gain little by such deadlines. The gateway ends a call at its deadline
    /// anyway, and giving the call up at half of that begins at most twice as many calls. A call that is given up
    /// sooner counts here, or, if it is given up in the same read, in `Frames`.
    pub(super) fn is_premature(&self, now: Instant) -> bool {
        let deadline = self.bounds.get().map_or(PREMATURE, |bounds| bounds.at.saturating_duration_since(self.begun));
        let least = (deadline / 2).min(PREMATURE);
        !self.has_answered.load(Relaxed) && now.saturating_duration_since(self.begun) < least
    }

    fn offered(&self) -> Option<Instant> {
        let nanos = self.offered.load(Relaxed).checked_sub(1)?;
        Some(self.begun + Duration::from_nanos(nanos))
    }
}

fn passed(what: &str, after: Duration) -> Failure {
    let message = format!("{what} of {} passed", humantime::format_duration(after));
    Failure::new(Reason::DeadlineExceeded, message)
}

fn stalled() -> Failure {
    let message = "the peer took nothing of the answer for too long";
    Failure::new(Reason::Stalled, message).retry_after(Some(STALLED_RETRY))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use tonic::Code;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The end of a call that may last five seconds, and stalls after two.
    fn end() -> (CallEnd, Stages) {
        let end = CallEnd::new();
        let stages = Stages::default();
        let why = Why::Deadline(5 * SECOND);
        end.bound(Bounds { at: end.begun + 5 * SECOND, why, stages: stages.clone(), stall_timeout: 2 * SECOND });
        (end, stages)
    }

    fn reason(end: &CallEnd) -> Code {
        end.reset().unwrap().code()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_peer_takes_nothing_is_overdue_a_moment_after_its_deadline_or_when_it_has_stalled() {
        let (end, _stages) = end();
        end.overdue().await;
        assert_eq!((end.begun.elapsed(), reason(&end)), (6 * SECOND, Code::DeadlineExceeded));
        let (end, _stages) = self::end();
        end.offer(Instant::now());
        end.overdue().await;
        assert_eq!((end.begun.elapsed(), reason(&end)), (2 * SECOND, Code::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_that_is_taken_and_each_wait_for_more_keeps_a_call_from_stalling() {
        let (end, _stages) = end();
        let taking = async {
            for _ in 0..3 {
                end.offer(Instant::now());
                time::sleep(SECOND).await;
            }
            end.nothing_to_offer();
            time::sleep(SECOND / 2).await;
            end.offer(Instant::now());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = taking => {}
            () = end.overdue() => {}
        }
        assert_eq!((end.begun.elapsed(), reason(&end)), (11 * SECOND / 2, Code::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_drain_makes_a_call_overdue_a_moment_later() {
        let (end, stages) = end();
        let ending = async {
            time::sleep(SECOND).await;
            stages.advance(Stage::Ending);
        };
        tokio::join!(end.overdue(), ending);
        assert_eq!((end.begun.elapsed(), reason(&end)), (2 * SECOND, Code::Unavailable));
        assert!(end.due().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_given_up_prematurely_while_it_is_young_and_far_from_its_deadline() {
        let (long, _stages) = end();
        let short = CallEnd::new();
        let bound = |end: &CallEnd, deadline| {
            let at = end.begun + deadline;
            let why = Why::Deadline(deadline);
            end.bound(Bounds { at, why, stages: Stages::default(), stall_timeout: SECOND });
        };
        bound(&short, SECOND / 5);
        let shortest = CallEnd::new();
        bound(&shortest, SECOND / 500);
        let answered = CallEnd::new();
        answered.answered();
        let premature = || [&long, &short, &shortest, &answered].map(|end| end.is_premature(Instant::now()));
        assert_eq!(premature(), [true, true, true, false]);
        time::sleep(SECOND / 1000).await;
        assert_eq!(premature(), [true, true, false, false]);
        time::sleep(SECOND / 10).await;
        assert_eq!(premature(), [true, false, false, false]);
        time::sleep(SECOND).await;
        assert_eq!(premature(), [false; 4]);
    }
}
