//! What the program says of itself while it runs: logs on standard error.

use std::{
    io::{self, IsTerminal as _},
    panic,
};

use serde::Deserialize;
use tracing::{Level, Metadata, error};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How to log; the `[log]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How lines look.
    pub format: Format,
    /// Which lines are written: a level, or levels by module such as `warn,ssm_gateway::edge=info`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For a terminal.
    Human,
    /// One JSON object a line, for machines.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Human, filter: "info".to_owned() }
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is no filter.
    #[error("the log filter is not a level or a list of MODULE=LEVEL")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A word in the filter that should be a level: it would be taken for a module, and silence all others.
    #[error("{0:?} in the log filter is not a level: off, error, warn, info, debug or trace")]
    Level(String),
    /// The process logs already.
    #[error("logging has already been started")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

impl Config {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(&self) -> Result<(), TelemetryError> {
        let is_level = |word: &&str| word.contains('=') || word.contains('[') || word.parse::<LevelFilter>().is_ok();
        if let Some(word) = self.filter.split(',').map(str::trim).find(|word| !is_level(word)) {
            return Err(TelemetryError::Level(word.to_owned()));
        }
        let filter = EnvFilter::builder().parse(&self.filter)?;
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        let lines = match self.format {
            Format::Human => lines.boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        let registry = tracing_subscriber::registry().with(filter);
        registry.with(lines.with_filter(filter_fn(is_free_of_payloads))).try_init()?;
        // What a panic says may hold what was asked and answered; where it was does not.
        panic::set_hook(Box::new(|panicked| {
            let place = panicked.location().map(ToString::to_string).unwrap_or_default();
            error!(place, "the program panicked");
        }));
        Ok(())
    }
}

/// Whether lines of this kind cannot hold what is asked and answered. Below info, the SDK and the HTTP crates write
/// whole messages, with nodes' addresses in them.
fn is_free_of_payloads(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || line.target().starts_with("ssm_gateway")
}
