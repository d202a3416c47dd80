use std::{
    io::{self, IsTerminal as _},
    panic,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata, error};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::batched::{Batched, LogGuard};
use crate::{
    display::Shown,
    setting::{InvalidSetting, positive_bounded},
};

/// The settings of the log; the `[log]` table of the configuration file.
///
/// # Examples
/// ```
/// use ssm_gateway::telemetry::LogConfig;
///
/// let filter = "warn,ssm_gateway::edge=info".to_owned();
/// assert!(LogConfig { filter, ..LogConfig::default() }.check().is_ok());
/// assert!(LogConfig { filter: "wrn".to_owned(), ..LogConfig::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The format of lines.
    pub format: Format,
    /// Which lines are written: a level, or levels by module such as `warn,ssm_gateway::edge=info`.
    pub filter: String,
    /// A call whose answer takes longer to begin is logged as a warning.
    #[serde(with = "humantime_serde")]
    pub slow_call: Duration,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For a terminal.
    Human,
    /// One JSON object per line, for machines.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Human, filter: "info".to_owned(), slow_call: Duration::from_secs(5) }
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is malformed.
    #[error("the log filter is not a level or a list of MODULE=LEVEL")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A word in the filter is not a level. It would be parsed as a module, and would silence all others.
    #[error("{} in the log filter is not a level: off, error, warn, info, debug or trace", Shown(.0))]
    Level(String),
    /// The thread that writes the log could not be started.
    #[error("could not start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// The process already has a logger.
    #[error("logging has already been started")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// The filter is invalid, or a duration out of range.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let Self { format: _, filter: _, slow_call } = self;
        self.filter().map_err(|error| InvalidSetting::new("filter", format!("is wrong: {error}")))?;
        positive_bounded("slow_call", *slow_call)
    }

    fn filter(&self) -> Result<EnvFilter, LogError> {
        // `EnvFilter` accepts an empty word, too, which would silence everything.
        let is_level = |word: &&str| {
            word.contains('=') || word.contains('[') || (!word.is_empty() && word.parse::<LevelFilter>().is_ok())
        };
        if let Some(word) = self.filter.split(',').map(str::trim).find(|word| !is_level(word)) {
            return Err(LogError::Level(word.to_owned()));
        }
        Ok(EnvFilter::builder().parse(&self.filter)?)
    }

    /// Starts logging for the whole process. Dropping the guard flushes the log.
    ///
    /// # Errors
    /// [`LogError`], if the filter is invalid, the thread cannot be started, or logging has been started already.
    pub fn start(&self) -> Result<LogGuard, LogError> {
        let filter = self.filter()?;
        let (writer, guard) = Batched::start().map_err(LogError::Thread)?;
        let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
        let lines = match self.format {
            Format::Human => lines.boxed(),
            Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        };
        let registry = tracing_subscriber::registry().with(filter);
        registry.with(lines.with_filter(filter_fn(is_written))).try_init()?;
        // Only the place of a panic is logged: its message may contain requests and answers.
        panic::set_hook(Box::new(|panicked| {
            let place = panicked.location().map(ToString::to_string).unwrap_or_default();
            error!(place, "the program panicked");
        }));
        Ok(guard)
    }
}

/// Crates that log each error of a peer, without its address. The edge logs these errors with addresses and at a
/// limited rate.
const SILENT: [&str; 3] = ["h2", "hyper", "rustls"];
/// The prefix of the crates of AWS's SDK, whose warnings may quote secrets from AWS's files and variables. The gateway
/// itself logs the failures of targets.
const SDK: &str = "aws_";

/// Returns whether a line is written. Excludes lines that may contain requests or answers, and lines that peers can
/// cause at will: below info, the SDK and the HTTP crates log whole messages, with nodes' addresses.
fn is_written(line: &Metadata<'_>) -> bool {
    let target = line.target();
    let is_of = |name: &&str| target.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    target.starts_with("ssm_gateway")
        || (*line.level() <= Level::INFO && !target.starts_with(SDK) && !SILENT.iter().any(is_of))
}
