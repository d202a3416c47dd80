use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{self, Instant, Sleep};

/// A timer that fires this late shows that the gateway itself did not run.
const LATE: Duration = Duration::from_millis(100);

/// A time-out for what a peer sends, without the time in which the gateway did not run and so did not read: a timer
/// that fires late gives the peer as much time again, once. Read what the peer has sent before each poll.
#[derive(Debug)]
pub(super) struct PeerTimeout {
    due: Instant,
    is_extended: bool,
    /// Wakes up at `due` or before; absent until the first poll.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl PeerTimeout {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { due: Instant::now() + timeout, is_extended: false, sleep: None }
    }

    /// Starts again, with this time-out.
    pub(super) fn restart(&mut self, timeout: Duration) {
        (self.due, self.is_extended) = (Instant::now() + timeout, false);
    }

    /// Returns ready when the peer has taken too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(time::sleep_until(self.due)));
        loop {
            if sleep.deadline() != self.due {
                sleep.as_mut().reset(self.due);
            }
            ready!(sleep.as_mut().poll(cx));
            let late = self.due.elapsed();
            if late < LATE || std::mem::replace(&mut self.is_extended, true) {
                return Poll::Ready(());
            }
            self.due = Instant::now() + late;
        }
    }
}

/// Awaits what a peer sends. Returns none if the peer takes too long.
pub(super) async fn within_peer_timeout<F: Future>(timeout: Duration, what: F) -> Option<F::Output> {
    let mut what = std::pin::pin!(what);
    let mut peer_timeout = PeerTimeout::new(timeout);
    std::future::poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => peer_timeout.poll(cx).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn wait(peer_timeout: &mut PeerTimeout) {
        std::future::poll_fn(|cx| peer_timeout.poll(cx)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_fires_in_time_is_the_time_out_and_one_that_fires_late_extends_it_once() {
        let started = Instant::now();
        let mut peer_timeout = PeerTimeout::new(SECOND);
        wait(&mut peer_timeout).await;
        assert_eq!(started.elapsed(), SECOND);
        peer_timeout.restart(SECOND);
        // The gateway does not run for three seconds, two of them after the end.
        time::advance(3 * SECOND).await;
        assert!(poll!(std::pin::pin!(wait(&mut peer_timeout))).is_pending());
        wait(&mut peer_timeout).await;
        assert_eq!(started.elapsed(), 6 * SECOND);
        peer_timeout.restart(SECOND);
        for _ in 0..2 {
            time::advance(3 * SECOND).await;
            let _is_over = poll!(std::pin::pin!(wait(&mut peer_timeout)));
        }
        assert!(poll!(std::pin::pin!(wait(&mut peer_timeout))).is_ready());
    }
}
