//! The configuration file. Each component defines its own part; what is absent has its default.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{edge, listing, telemetry, upstream};

/// All of the configuration, a TOML table a component.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How callers are served.
    pub edge: edge::Config,
    /// How SSM is reached.
    pub upstream: upstream::Config,
    /// The bounds of listings.
    pub listing: listing::Config,
    /// How to log.
    pub log: telemetry::Config,
}

/// Why the configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("could not read the configuration file {0}")]
    Read(PathBuf, #[source] io::Error),
    /// It is not TOML, or has a key or value that is not known; the source shows the line.
    #[error("the configuration file {0} is wrong")]
    Parse(PathBuf, #[source] toml::de::Error),
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Read(path.to_owned(), error))?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse(path.to_owned(), error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_part_is_read_and_what_is_absent_has_its_default() {
        let config: Config = toml::from_str(
            r#"
            [edge]
            listen = "127.0.0.1:0"
            drain_timeout = "3s"
            [upstream]
            region = "eu-west-1"
            attempt_timeout = "1500ms"
            [listing]
            cursor_lifetime = "30m"
            [log]
            format = "json"
            "#,
        )
        .unwrap();
        assert_eq!(config.edge.drain_timeout, Duration::from_secs(3));
        assert_eq!(config.upstream.region.as_deref(), Some("eu-west-1"));
        assert_eq!(config.upstream.attempt_timeout, Duration::from_millis(1500));
        assert_eq!(config.upstream.connect_timeout, Duration::from_secs(3));
        assert_eq!(config.listing.cursor_lifetime, Duration::from_mins(30));
        assert_eq!(config.log.format, telemetry::Format::Json);
    }

    #[test]
    fn the_readme_shows_every_setting_with_its_default() {
        let readme = include_str!("../README.md");
        let shown = readme.split("```").find_map(|block| block.strip_prefix("toml")).unwrap();
        let default = format!("{:#?}", Config::default());
        assert_eq!(format!("{:#?}", toml::from_str::<Config>(shown).unwrap()), default);
        for name in default.lines().filter_map(|line| Some(line.split_once(": ")?.0.trim())) {
            assert!(shown.contains(name) || name == "simulated_credentials", "{name}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error =
            toml::from_str::<Config>("[edge]\nlisten = \"127.0.0.1:0\"\nlissten = 1\n").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("lissten") && error.contains("`listen`"), "{error}");
    }
}
