use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for others, which are written with it.
const BATCH: Duration = Duration::from_millis(10);
/// The most bytes that wait while others are written. Further lines are dropped, because no call may wait for the
/// reader of the log.
const MAX_WAITING: usize = 4 << 20;
/// The longest wait for the remaining lines at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A writer to standard error that a thread of its own empties in batches. One system call per line would cost a call
/// more than all its other work. Clones share the buffer.
#[derive(Debug, Clone)]
pub(super) struct Batched(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when the buffer becomes non-empty, and when a batch is written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many lines were dropped.
    lost: usize,
    is_writing: bool,
}

/// Waits, when dropped, until the remaining lines are written, at most one second.
#[derive(Debug)]
pub struct LogGuard(Batched);

impl Batched {
    pub(super) fn start() -> io::Result<(Self, LogGuard)> {
        let batched = Self(Arc::default());
        let writer = batched.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok((batched.clone(), LogGuard(batched)))
    }

    fn run(&self) {
        let mut batch = Vec::new();
        loop {
            drop(self.0.changed.wait_while(self.waiting(), |waiting| waiting.lines.is_empty()));
            thread::sleep(BATCH);
            let mut waiting = self.waiting();
            mem::swap(&mut batch, &mut waiting.lines);
            waiting.is_writing = true;
            let lost = mem::take(&mut waiting.lost);
            drop(waiting);
            // Nothing is left to report to if standard error fails.
            let _unwritten = io::stderr().write_all(&batch);
            batch.clear();
            self.waiting().is_writing = false;
            self.0.changed.notify_all();
            if lost > 0 {
                warn!(lost, "log lines were dropped here: the log was not read fast enough");
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each `write` is a whole line: `tracing_subscriber` formats a line before it writes.
impl Write for &Batched {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.lines.len() > MAX_WAITING {
            waiting.lost += 1;
        } else {
            if waiting.lines.is_empty() {
                self.0.changed.notify_all();
            }
            waiting.lines.extend_from_slice(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Batched {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let Self(batched) = self;
        let is_left = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        drop(batched.0.changed.wait_timeout_while(batched.waiting(), FLUSH_TIMEOUT, is_left));
    }
}
