use toml::Value;

use super::Config;

/// The keys whose values are secret. URLs are not among them: one with a user or a query is refused.
const SECRETS: [&str; 3] = ["external_id", "sha256", "token_sha256"];
const HIDDEN: &str = "…";

impl Config {
    /// Returns the configuration in TOML, with its defaults and without secrets.
    ///
    /// # Errors
    /// TOML cannot hold a value, such as an integer beyond 64 bits.
    pub fn redacted(&self) -> Result<String, toml::ser::Error> {
        let mut config = Value::try_from(self)?;
        redact(&mut config);
        toml::to_string(&config)
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::Table(table) => table.iter_mut().for_each(|(key, value)| {
            if SECRETS.contains(&key.as_str()) { *value = HIDDEN.into() } else { redact(value) }
        }),
        Value::Array(values) => values.iter_mut().for_each(redact),
        _ => {}
    }
}
