use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// How long lines wait for others to be written with.
const BATCH: Duration = Duration::from_millis(10);
/// How many bytes may wait beside those that are being written. Lines beyond them are lost: nobody who is served waits for whoever reads the log.
const MOST: usize = 4 << 20;
/// How long the lines that are left may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Standard error, written to by a thread of its own: a system call a line would cost calls more than all else that is done for
/// them. Clones write to the same.
#[derive(Debug, Clone)]
pub(super) struct Batched(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write, or nothing any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many lines there was no room for.
    lost: usize,
    is_writing: bool,
}

/// Waits for what is left to be written when it is dropped, though not for long.
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
            // There is nowhere else to say that it cannot be said.
            let _unheard = io::stderr().write_all(&batch);
            batch.clear();
            self.waiting().is_writing = false;
            self.0.changed.notify_all();
            if lost > 0 {
                warn!(lost, "lines of the log are lost here: it was not read fast enough");
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes whole lines, as `tracing_subscriber` gives them.
impl Write for &Batched {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.lines.len() > MOST {
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
        drop(batched.0.changed.wait_timeout_while(batched.waiting(), LAST_WORDS, is_left));
    }
}
