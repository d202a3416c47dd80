//! A server as a process of its own, with what it costs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A running process; dropping it kills it.
pub(crate) struct Process {
    pub(crate) addr: SocketAddr,
    /// Whether callers must prove who they are.
    pub(crate) is_guarded: bool,
    child: Child,
}

impl Process {
    /// Starts the command, and waits until it says on standard error where it listens.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.env("SSM_GATEWAY_ADMIN_LISTEN", "127.0.0.1:0").stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "{command:?} ended");
        }
        // Whatever it says later is read, so that it never waits for us.
        thread::spawn(move || log.read_to_end(&mut Vec::new()));
        let port: String = line.split("127.0.0.1:").last().unwrap().chars().take_while(char::is_ascii_digit).collect();
        Self { addr: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())), is_guarded: false, child }
    }

    /// The processor time that all its threads have used.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Its resident memory now and at its peak, in KiB.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// Takes its memory now for its peak so far.
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
