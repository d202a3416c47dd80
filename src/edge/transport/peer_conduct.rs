use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

use crate::edge::cut::Cut;

/// How many calls must have been given up before a connection is judged by them, as in Envoy
/// (`overload.premature_reset_total_stream_count`).
const LEAST: u64 = 500;

/// The conduct of a peer on one connection, by which the connection is cut, if it is.
#[derive(Debug, Default)]
pub(super) struct PeerConduct {
    ended: AtomicU64,
    premature: AtomicU64,
    cut: OnceLock<Cut>,
    reading: AtomicWaker,
}

impl PeerConduct {
    /// Counts a call that has ended, and whether its caller gave it up prematurely. Cuts a connection on which at least
    /// [`LEAST`] calls, and more than half, were.
    pub(super) fn ended(&self, is_premature: bool) {
        let ended = self.ended.fetch_add(1, Relaxed) + 1;
        if is_premature {
            let premature = self.premature.fetch_add(1, Relaxed) + 1;
            if premature >= LEAST && 2 * premature > ended {
                self.cut(Cut::Resets);
                self.reading.wake();
            }
        }
    }

    /// Cuts the connection at its next read.
    pub(super) fn cut(&self, why: Cut) {
        let _already = self.cut.set(why);
    }

    /// Returns why the connection was cut.
    pub(super) fn why_cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    /// Wakes this task, which reads from the connection, when the connection is cut.
    pub(super) fn reads(&self, waker: &Waker) {
        self.reading.register(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_cut_when_most_of_many_calls_were_given_up_prematurely() {
        let conduct = |good: u64, premature: u64| {
            let conduct = PeerConduct::default();
            (0..good).for_each(|_| conduct.ended(false));
            (0..premature).for_each(|_| conduct.ended(true));
            conduct.why_cut()
        };
        assert_eq!(conduct(0, LEAST - 1), None, "too few");
        assert_eq!(conduct(0, LEAST), Some(Cut::Resets));
        assert_eq!(conduct(10_000, 9_999), None, "not the most");
        assert_eq!(conduct(10_000, 10_001), Some(Cut::Resets));
        assert_eq!(conduct(100_000, 0), None);
    }
}
