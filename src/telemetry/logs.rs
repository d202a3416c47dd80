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
use crate::display::Shown;

/// How to log; the `[log]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How lines look.
    pub format: Format,
    /// Which lines are written: a level, or levels by module such as `warn,ssm_gateway::edge=info`.
    pub filter: String,
    /// A call whose answer takes longer to begin is told as a warning.
    #[serde(with = "humantime_serde")]
    pub slow_call: Duration,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For a terminal.
    Human,
    /// One JSON object a line, for machines.
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
    /// The filter is no filter.
    #[error("the log filter is not a level or a list of MODULE=LEVEL")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A word in the filter that should be a level: it would be taken for a module, and silence all others.
    #[error("{} in the log filter is not a level: off, error, warn, info, debug or trace", Shown(.0))]
    Level(String),
    /// There is no thread to write with.
    #[error("could not start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// The process logs already.
    #[error("logging has already been started")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

impl Config {
    /// Checks the filter.
    ///
    /// # Errors
    /// [`LogError::Filter`] and [`LogError::Level`].
    pub fn check(&self) -> Result<(), LogError> {
        self.filter().map(drop)
    }

    fn filter(&self) -> Result<EnvFilter, LogError> {
        // An empty word is parsed, too, and would silence all.
        let is_level = |word: &&str| {
            word.contains('=') || word.contains('[') || (!word.is_empty() && word.parse::<LevelFilter>().is_ok())
        };
        if let Some(word) = self.filter.split(',').map(str::trim).find(|word| !is_level(word)) {
            return Err(LogError::Level(word.to_owned()));
        }
        Ok(EnvFilter::builder().parse(&self.filter)?)
    }

    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// [`LogError`].
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
        // What a panic says may hold what was asked and answered; where it was does not.
        panic::set_hook(Box::new(|panicked| {
            let place = panicked.location().map(ToString::to_string).unwrap_or_default();
            error!(place, "the program panicked");
        }));
        Ok(guard)
    }
}

/// What peers do wrong is told by the edge, seldom and with their addresses; these would write a line each time, without.
const SILENT: [&str; 3] = ["h2", "hyper", "rustls"];
/// What the crates of AWS's SDK begin with: their warnings repeat what stands in AWS's files and variables, which may be secret. What
/// fails for a target has a line of ours.
const SDK: &str = "aws_";

/// Returns whether lines of this kind are written: those that cannot hold what is asked and answered, and that strangers cannot
/// cause as often as they like. Below info, the SDK and the HTTP crates write whole messages, with nodes' addresses in them.
fn is_written(line: &Metadata<'_>) -> bool {
    let target = line.target();
    let is_of = |name: &&str| target.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    target.starts_with("ssm_gateway")
        || (*line.level() <= Level::INFO && !target.starts_with(SDK) && !SILENT.iter().any(is_of))
}
