//! How fast a target is asked: a token bucket whose rate falls when AWS throttles, and recovers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{self, watch},
    time::{self, Instant},
};

use super::{Pace, Priority};

/// What is left of the rate after AWS throttled.
const DECREASE: f64 = 0.7;
/// By how much of the highest rate the rate grows in a second: slowly, so that little is throttled again, and still
/// from the lowest to the highest in little more than a minute.
const INCREASE: f64 = 0.015;
/// The lowest rate, as a part of the highest.
const LEAST: f64 = 0.02;

/// A queue of fetches, each of which is admitted when the rate allows it.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// How many fetches may wait.
    max_queued: usize,
    bucket: Mutex<Bucket>,
    /// Held by the first fetch of this priority.
    interactive: sync::Mutex<()>,
    background: sync::Mutex<()>,
    queued: watch::Sender<Queued>,
}

/// The number of fetches of each priority that wait.
#[derive(Debug, Default, Clone, Copy)]
struct Queued {
    interactive: usize,
    background: usize,
}

/// A place in the queue, until it is dropped.
struct Place<'a> {
    queued: &'a watch::Sender<Queued>,
    priority: Priority,
}

/// The queue is too long already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many wait for the target already")]
pub(crate) struct QueueFull;

#[derive(Debug)]
struct Bucket {
    /// Calls a second, at most and now.
    most: f64,
    rate: f64,
    tokens: f64,
    /// When tokens were last counted.
    counted: Instant,
    /// When AWS said to come back, and when the rate last fell.
    not_before: Instant,
    fell: Option<Instant>,
}

impl Pacer {
    /// Admits at most so many calls a second; those of a second may come at once.
    pub(crate) fn new(per_second: f64, max_queued: usize) -> Self {
        let most = per_second;
        let now = Instant::now();
        Self {
            max_queued,
            bucket: Mutex::new(Bucket {
                most,
                rate: most,
                tokens: most.max(1.0),
                counted: now,
                not_before: now,
                fell: None,
            }),
            interactive: sync::Mutex::default(),
            background: sync::Mutex::default(),
            queued: watch::Sender::default(),
        }
    }

    /// Waits to be admitted; background fetches wait for all others. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`QueueFull`], if so many wait already that another would wait too long.
    pub(crate) async fn admit(&self, priority: Priority) -> Result<(), QueueFull> {
        let _place = self.enqueue(priority)?;
        match priority {
            Priority::Interactive => {
                let _first = self.interactive.lock().await;
                while let Err(until) = self.take() {
                    time::sleep_until(until).await;
                }
            }
            Priority::Background => {
                let _first = self.background.lock().await;
                let mut queued = self.queued.subscribe();
                loop {
                    // The sender is ours: this cannot fail.
                    drop(queued.wait_for(|queued| queued.interactive == 0).await);
                    let Err(until) = self.take() else { break };
                    time::sleep_until(until).await;
                }
            }
        }
        Ok(())
    }

    /// Returns how fast fetches are admitted, and how many wait.
    pub(super) fn pace(&self) -> Pace {
        let queued = *self.queued.borrow();
        let bucket = self.bucket();
        let rate = bucket.rate_at(Instant::now());
        Pace { rate, max_rate: bucket.most, waiting: queued.interactive + queued.background, ..Pace::default() }
    }

    /// Slows down after a call sent at `sent` was throttled; calls that were sent before the rate fell are one reason
    /// with it.
    pub(crate) fn throttled(&self, sent: Instant, advice: Option<Duration>) {
        self.bucket().throttled(sent, advice.unwrap_or_default(), Instant::now());
    }

    fn enqueue(&self, priority: Priority) -> Result<Place<'_>, QueueFull> {
        let has_entered = self.queued.send_if_modified(|queued| {
            let ahead = if priority == Priority::Interactive { 0 } else { queued.background };
            let has_room = queued.interactive + ahead < self.max_queued;
            if has_room {
                *queued.of(priority) += 1;
            }
            has_room
        });
        has_entered.then(|| Place { queued: &self.queued, priority }).ok_or(QueueFull)
    }

    /// Takes a token, or returns when there may be one.
    fn take(&self) -> Result<(), Instant> {
        self.bucket().take(Instant::now())
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queued {
    fn of(&mut self, priority: Priority) -> &mut usize {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Background => &mut self.background,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queued.send_modify(|queued| *queued.of(self.priority) -= 1);
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if now < self.not_before {
            return Err(self.not_before);
        }
        let elapsed = self.elapsed(now);
        let rate = self.rate_at(now);
        self.counted = now;
        self.tokens = (self.tokens + elapsed * self.rate).min(self.rate.max(1.0));
        self.rate = rate;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(now + Duration::from_secs_f64((1.0 - self.tokens) / self.rate) + Duration::from_millis(1))
        }
    }

    /// The time in which tokens came and the rate recovered, in seconds.
    fn elapsed(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.counted.max(self.not_before)).as_secs_f64()
    }

    fn rate_at(&self, now: Instant) -> f64 {
        (self.rate + self.elapsed(now) * INCREASE * self.most).min(self.most)
    }

    fn throttled(&mut self, sent: Instant, advice: Duration, now: Instant) {
        self.not_before = self.not_before.max(now + advice);
        if self.fell.is_none_or(|fell| fell <= sent) {
            self.rate = (self.rate * DECREASE).max(LEAST * self.most);
            self.tokens = self.tokens.min(0.0);
            self.fell = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Counts who is admitted in this time, one after the other.
    async fn admitted(pacer: &Pacer, within: Duration) -> usize {
        let end = Instant::now() + within;
        let mut count = 0;
        while time::timeout_at(end, pacer.admit(Priority::Interactive)).await.is_ok() {
            count += 1;
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_of_calls_may_come_at_once_and_then_so_many_a_second() {
        let pacer = Pacer::new(10.0, 100);
        assert_eq!(admitted(&pacer, Duration::from_millis(1)).await, 10);
        assert!((98..=101).contains(&admitted(&pacer, 10 * SECOND).await));
        time::advance(60 * SECOND).await;
        assert_eq!(admitted(&pacer, Duration::from_millis(1)).await, 10, "idle time is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_goes_first() {
        let pacer = Arc::new(Pacer::new(1.0, 100));
        admitted(&pacer, Duration::from_millis(1)).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [Priority::Background, Priority::Background, Priority::Interactive, Priority::Interactive]
            .into_iter()
            .map(|priority| {
                let pacer = Arc::clone(&pacer);
                let order = Arc::clone(&order);
                tokio::spawn(async move {
                    pacer.admit(priority).await.unwrap();
                    order.lock().unwrap().push(priority);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock().unwrap();
        assert_eq!(order[..2], [Priority::Interactive; 2]);
        assert_eq!(order[2..], [Priority::Background; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_who_goes_away_leaves_it() {
        let pacer = Pacer::new(1.0, 2);
        admitted(&pacer, Duration::from_millis(1)).await;
        let mut waiting = [Priority::Background, Priority::Background, Priority::Interactive, Priority::Interactive]
            .map(|priority| Box::pin(pacer.admit(priority)));
        for admitted in &mut waiting {
            assert!(futures_util::poll!(admitted).is_pending(), "the background is in nobody's way");
        }
        for priority in [Priority::Interactive, Priority::Background] {
            assert_eq!(pacer.admit(priority).await, Err(QueueFull));
        }
        drop(waiting);
        assert_eq!(pacer.admit(Priority::Background).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn advice_is_obeyed_and_calls_that_were_throttled_together_slow_it_down_once() {
        let pacer = Pacer::new(10.0, 100);
        let sent = Instant::now();
        time::advance(SECOND / 10).await;
        for _ in 0..5 {
            pacer.throttled(sent, Some(3 * SECOND));
        }
        assert_eq!(admitted(&pacer, SECOND * 29 / 10).await, 0);
        let seven = admitted(&pacer, 10 * SECOND).await;
        assert!((70..=90).contains(&seven), "{seven}");
    }

    /// AWS's side: so many calls a second, and as many at once.
    struct Limit {
        rate: f64,
        tokens: f64,
        counted: Instant,
    }

    impl Limit {
        fn lets_through(&mut self) -> bool {
            let now = Instant::now();
            self.tokens = (self.tokens + (now - self.counted).as_secs_f64() * self.rate).min(self.rate);
            self.counted = now;
            let is_through = self.tokens >= 1.0;
            self.tokens -= f64::from(u8::from(is_through));
            is_through
        }
    }

    /// Asks for this long with a hold-off of a second after each throttled call, as listings do: calls, and throttled
    /// ones.
    async fn storm(pacer: &Pacer, limit: &mut Limit, time: Duration) -> (u32, u32) {
        let end = Instant::now() + time;
        let mut calls = 0;
        let mut throttled = 0;
        while time::timeout_at(end, pacer.admit(Priority::Interactive)).await.is_ok() {
            calls += 1;
            if !limit.lets_through() {
                throttled += 1;
                pacer.throttled(Instant::now(), None);
                time::sleep(SECOND).await;
            }
        }
        (calls, throttled)
    }

    #[tokio::test(start_paused = true)]
    async fn under_a_limit_it_settles_there_and_is_back_in_a_minute_when_it_is_lifted() {
        let pacer = Pacer::new(10.0, 100);
        let mut limit = Limit { rate: 3.0, tokens: 3.0, counted: Instant::now() };
        storm(&pacer, &mut limit, 20 * SECOND).await;
        let (calls, throttled) = storm(&pacer, &mut limit, 60 * SECOND).await;
        assert!(throttled * 10 < calls, "{throttled} of {calls} were throttled");
        assert!(f64::from(calls - throttled) > 0.8 * 3.0 * 60.0, "{calls}, {throttled} of them throttled");
        limit.rate = 1000.0;
        storm(&pacer, &mut limit, 60 * SECOND).await;
        let (calls, _) = storm(&pacer, &mut limit, 10 * SECOND).await;
        assert!((98..=101).contains(&calls), "{calls}");
    }
}
