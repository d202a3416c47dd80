use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The most lines of a kind that are written in [`INTERVAL`].
const LINES: u64 = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits how many log lines of a kind are written, where strangers can cause them.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    lines: u64,
}

impl LogLimiter {
    /// Counts a line. Returns how many lines were left out before it, if it may be written, and none if it must be left
    /// out.
    pub(super) fn admit(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut left_out = 0;
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= INTERVAL) {
            left_out = state.lines.saturating_sub(LINES);
            *state = State { since: Some(now), lines: 0 };
        }
        state.lines += 1;
        (state.lines <= LINES).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_lines_are_written_in_ten_seconds_and_the_next_one_says_how_many_were_not() {
        let limiter = LogLimiter::default();
        let written = |count: u64| (0..count).filter_map(|_| limiter.admit()).collect::<Vec<_>>();
        assert_eq!(written(540), [0; 10]);
        time::advance(INTERVAL).await;
        assert_eq!(written(3), [530, 0, 0]);
        time::advance(INTERVAL).await;
        assert_eq!(written(1), [0]);
    }
}
