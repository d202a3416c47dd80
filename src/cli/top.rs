#![allow(clippy::doc_markdown, reason = "help texts show no Markdown")]

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use futures_util::StreamExt as _;
use terminal_size::{Height, Width, terminal_size};
use tokio::time::{self, Instant};

use super::{
    admin::Admin,
    error::CliError,
    signals::stop_signals,
    terminal::{cut, harmless},
};
use crate::{
    admin::{Failure, Listing, Reads, Status, Target},
    display::ErrorChain,
};

/// The longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most listings on the screen.
const LISTINGS: usize = 20;
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
/// Enters the alternate screen and hides the cursor; and back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// Moves to the upper left corner; clears the rest of the line; clears the rest of the screen.
const HOME: &str = "\u{1b}[H";
const REST_OF_LINE: &str = "\u{1b}[K";
const REST: &str = "\u{1b}[J";

/// Watch a running gateway: its targets, its listings, its calls.
///
/// Polls the admin address and shows the status until Ctrl-C. If the output is not a terminal, prints the status once,
/// as text.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The gateway's admin address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9464", env = "SSM_GATEWAY_ADMIN")]
    admin: Admin,
    /// A file with the token of the gateway's [admin] table, if that sets one.
    #[arg(long, value_name = "FILE", env = "SSM_GATEWAY_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// How often to poll; rates are averages over this time.
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    interval: Duration,
}

/// A status, and when it was received.
struct Sample {
    status: Status,
    at: Instant,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let before = self.sample().await?;
        if io::stdout().is_terminal() {
            return self.watch(before).await;
        }
        time::sleep(self.interval).await;
        let lines = lines(&before, &self.sample().await?);
        io::stdout().write_all((lines.join("\n") + "\n").as_bytes())?;
        Ok(())
    }

    /// Redraws the status until Ctrl-C. A gateway that does not answer may return, so that polling continues.
    async fn watch(&self, mut before: Sample) -> Result<(), CliError> {
        let mut stops = Box::pin(stop_signals()?);
        write!(io::stdout(), "{ENTER}")?;
        let mut shown = lines(&before, &before);
        let outcome = loop {
            if let Err(error) = draw(&shown) {
                break Err(error.into());
            }
            let sampling = async {
                time::sleep(self.interval).await;
                self.sample().await
            };
            let sample = tokio::select! {
                _ = stops.next() => break Ok(()),
                sample = sampling => sample,
            };
            match sample {
                Ok(now) => {
                    shown = lines(&before, &now);
                    before = now;
                }
                Err(error) => {
                    let why = format!("{}; the last status was:", ErrorChain(&error));
                    shown.splice(..1, [harmless(&why)]).for_each(drop);
                }
            }
        };
        write!(io::stdout(), "{LEAVE}")?;
        io::stdout().flush()?;
        outcome
    }

    async fn sample(&self) -> Result<Sample, CliError> {
        let asking = self.admin.get("/status", self.admin_token_file.as_deref());
        let answer = time::timeout(TIMEOUT, asking).await.unwrap_or(Err(CliError::Timeout))?;
        let status = serde_json::from_slice(&answer).map_err(|error| self.admin.failed(error))?;
        Ok(Sample { status, at: Instant::now() })
    }
}

/// Parses an interval. A shorter one would only load the gateway.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < LEAST_INTERVAL { Err("must be at least 10ms".to_owned()) } else { Ok(interval) }
}

/// Draws as many lines and columns as the terminal has.
fn draw(lines: &[String]) -> io::Result<()> {
    let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
    let width = usize::from(width);
    let height = usize::from(height);
    let shown = lines.iter().take(height).map(|line| cut(line, width) + REST_OF_LINE);
    let screen = format!("{HOME}{}{REST}", shown.collect::<Vec<_>>().join("\r\n"));
    let mut stdout = io::stdout().lock();
    stdout.write_all(screen.as_bytes())?;
    stdout.flush()
}

/// Returns the screen: totals, and rates between two samples.
fn lines(before: &Sample, now: &Sample) -> Vec<String> {
    let Status { version, stage, unready, calls, memory, targets, listings, listing_count, .. } = &now.status;
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let up = humantime::format_duration(Duration::from_secs(now.status.uptime_seconds));
    let readiness = unready.as_deref().unwrap_or("ready");
    let all = now.status.reads();
    let all_before = before.status.reads();
    let mut lines = vec![
        format!("ssm-gateway {version}, {stage}, up {up}, {readiness}"),
        format!(
            "hit ratio {}, {} calls/s, {} active, {} of {} failed, {} connections",
            share(all, all_before),
            rate(calls.ended.saturating_sub(before.status.calls.ended), seconds),
            calls.active,
            calls.failed,
            calls.ended,
            now.status.connections,
        ),
        format!("{} of {} MiB of listings, {} evictions", mib(memory.bytes), mib(memory.max_bytes), memory.evictions),
        String::new(),
        format!(
            "{:18} {:12} {:>4} {:>8} {:>11} {:>4} {:>7} {:>9}",
            "TARGET", "STATE", "HIT", "READS/S", "RATE", "WAIT", "FETCH/S", "THROTTLED"
        ),
    ];
    for target in targets {
        let earlier = before.status.targets.iter().find(|earlier| earlier.name == target.name);
        lines.push(target_line(target, earlier.unwrap_or(target), seconds));
        lines.extend(target.last_error.as_ref().filter(|_| target.state != "ready").map(failure_line));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:18} {:8} {:>7} {:>5} {:>7} {:>7} {:>6}  FILTERS (the {} used last, of {listing_count})",
        "LISTING OF",
        "STATE",
        "AGE",
        "PAGES",
        "KIB",
        "READERS",
        "READS",
        listings.len().min(LISTINGS)
    ));
    lines.extend(listings.iter().take(LISTINGS).map(listing_line));
    lines.iter().map(|line| harmless(line)).collect()
}

fn target_line(target: &Target, before: &Target, seconds: f64) -> String {
    let Target { name, state, rate: now, max_rate, waiting, throttled, .. } = target;
    let star = if target.is_default { "*" } else { "" };
    format!(
        "{:18} {state:12} {:>4} {:>8} {:>11} {waiting:>4} {:>7} {throttled:>9}",
        format!("{name}{star}"),
        share(target.reads, before.reads),
        rate(target.reads.total().saturating_sub(before.reads.total()), seconds),
        format!("{now:.1}/{max_rate:.1}"),
        rate(target.fetches.saturating_sub(before.fetches), seconds),
    )
}

fn failure_line(error: &Failure) -> String {
    let code = error.aws_error_code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
    format!("  {}{code} at {}", error.what, error.at)
}

fn listing_line(listing: &Listing) -> String {
    let Listing { target, filters, state, pages, bytes, readers, reads, .. } = listing;
    let age = listing.age_seconds.map_or_else(|| "-".to_owned(), |age| format!("{age:.1}s"));
    let filters = if filters.is_empty() { "none" } else { filters };
    let kib = bytes >> 10;
    format!("{target:18} {state:8} {age:>7} {pages:>5} {kib:>7} {readers:>7} {:>6}  {filters}", reads.total())
}

#[expect(clippy::cast_precision_loss, reason = "more digits than are printed")]
fn rate(count: u64, seconds: f64) -> String {
    if seconds > 0.0 { format!("{:.1}", count as f64 / seconds) } else { "-".to_owned() }
}

/// Returns the share of reads that needed no fetch of their own: between the samples, or of all if there were none.
fn share(now: Reads, before: Reads) -> String {
    let between = now.total().saturating_sub(before.total());
    let (part, whole) = match between {
        0 => (now.shared(), now.total()),
        between => (now.shared().saturating_sub(before.shared()), between),
    };
    (100 * part).checked_div(whole).map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"))
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ended: u64, hit: u64, at: Instant) -> Sample {
        let reads = Reads { hit, miss: 10, ..Reads::default() };
        let target =
            Target { name: "prod".to_owned(), is_default: true, state: "ready".to_owned(), reads, ..Target::default() };
        let listing =
            Listing { target: "prod".to_owned(), filters: "tag:a=\u{1b}[2J".to_owned(), ..Listing::default() };
        let mut status = Status { targets: vec![target], listings: vec![listing], ..Status::default() };
        status.calls.ended = ended;
        Sample { status, at }
    }

    #[test]
    fn rates_and_shares_are_of_what_happened_between_two_samples() {
        let at = Instant::now();
        let lines = lines(&sample(100, 0, at), &sample(300, 90, at + Duration::from_secs(2)));
        assert!(lines[1].contains("hit ratio 100%, 100.0 calls/s,"), "{}", lines[1]);
        assert!(lines[5].starts_with("prod*") && lines[5].contains(" 45.0 "), "{}", lines[5]);
        assert_eq!((rate(5, 0.0).as_str(), share(Reads::default(), Reads::default()).as_str()), ("-", "-"));
        let reads = Reads { hit: 1, miss: 3, ..Reads::default() };
        assert_eq!(share(reads, reads), "25%", "of all where nothing happened");
    }

    #[test]
    fn what_callers_say_does_not_steer_the_terminal() {
        let now = sample(0, 0, Instant::now());
        assert!(lines(&now, &now).iter().all(|line| !line.contains(char::is_control)));
    }
}
