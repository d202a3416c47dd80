//! The resources that the process uses, as Linux reports them under `/proc`. The collector of the `prometheus` crate
//! counts CPU time in whole seconds, and brings two crates of its own.

use std::fs;

/// The clock ticks of a second in `/proc`: 100 on every platform that Rust runs Linux on, whatever the kernel's own
/// rate. Prometheus's Go client relies on the same number.
const TICKS: f64 = 100.0;

/// The figures of this process; absent on systems other than Linux.
#[derive(Debug, Default)]
pub(super) struct ProcessUsage {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<f64>,
    /// None where there is no limit.
    pub(super) max_fds: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    /// In seconds since 1970.
    pub(super) started: Option<f64>,
    pub(super) threads: Option<f64>,
}

impl ProcessUsage {
    pub(super) fn read() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let stat = read("self/stat");
        let status = read("self/status");
        let limits = read("self/limits");
        let ticks = |field: usize| stat_field(&stat, field).map(|ticks| ticks / TICKS);
        let kib = |name: &str| value_of(&status, name).map(|kib| kib * 1024.0);
        Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
            #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1) as f64),
            max_fds: value_of(&limits, "Max open files"),
            virtual_bytes: kib("VmSize:"),
            resident_bytes: kib("VmRSS:"),
            started: ticks(22).zip(value_of(&read("stat"), "btime")).map(|(since_boot, boot)| boot + since_boot),
            threads: value_of(&status, "Threads:"),
        }
    }
}

/// Returns a field of `/proc/self/stat`, counted from 1 as in proc(5). The second one, the program's name, may contain
/// anything.
fn stat_field(stat: &str, field: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
}

/// Returns the number after `name` at the beginning of a line.
fn value_of(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        hint,
        time::{Instant, SystemTime, UNIX_EPOCH},
    };

    use super::*;

    #[test]
    fn cpu_time_grows_by_less_than_a_second() {
        let begun = ProcessUsage::read().cpu_seconds.unwrap();
        let started = Instant::now();
        let mut now = begun;
        while now <= begun {
            hint::black_box((0..100_000).sum::<u64>());
            now = ProcessUsage::read().cpu_seconds.unwrap();
            assert!(started.elapsed().as_secs() < 30, "it was busy for long");
        }
        assert!(now.fract() > 0.0 || begun.fract() > 0.0, "{begun} {now}");
    }

    #[test]
    fn the_process_is_seen_as_it_is() {
        let process = ProcessUsage::read();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = process.started.unwrap();
        assert!(now - started > -2.0 && now - started < 3600.0, "{started}, {now}");
        assert!(process.open_fds.unwrap() >= 3.0 && process.max_fds.is_none_or(|max| max >= process.open_fds.unwrap()));
        assert!(process.threads.unwrap() >= 1.0 && process.resident_bytes.unwrap() > 1e6);
        assert!(process.virtual_bytes.unwrap() >= process.resident_bytes.unwrap());
    }

    #[test]
    fn the_name_of_the_program_may_contain_blanks_and_parentheses() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0";
        assert_eq!((stat_field(stat, 14), stat_field(stat, 15)), (Some(250.0), Some(50.0)));
        assert_eq!(stat_field("", 14), None);
        let limits = "Limit  Soft Limit\nMax open files            1024                 4096    files\n";
        assert_eq!(value_of(limits, "Max open files"), Some(1024.0));
        assert_eq!(value_of("Max open files            unlimited  unlimited", "Max open files"), None);
    }
}
