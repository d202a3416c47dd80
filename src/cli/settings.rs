use std::{net::SocketAddr, path::PathBuf};

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};

use crate::{
    config::{Config, ConfigError},
    edge::Address,
    telemetry::Format,
};

/// The configuration of a gateway: a file, overridden by the environment, overridden by flags.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// The configuration file, in TOML.
    #[arg(long, value_name = "FILE", env = "SSM_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// The address to listen on: IP:PORT, or unix:PATH [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDR", env = "SSM_GATEWAY_LISTEN")]
    listen: Option<Address>,
    /// Accept unauthenticated callers, also off loopback or beside configured authentication. On loopback without
    /// configured authentication they are accepted anyway.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), env = "SSM_GATEWAY_ALLOW_ANONYMOUS")]
    allow_anonymous: Option<bool>,
    /// Accept bearer tokens without TLS, also off loopback, where others could read them.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), env = "SSM_GATEWAY_ALLOW_PLAINTEXT_TOKENS")]
    allow_plaintext_tokens: Option<bool>,
    /// The AWS region [default: AWS's own variables and files].
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_REGION")]
    region: Option<String>,
    /// The SSM endpoint to use in place of the region's, such as a simulator's.
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_ENDPOINT_URL")]
    endpoint_url: Option<String>,
    /// The profile in AWS's shared files whose credentials are used.
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_PROFILE")]
    profile: Option<String>,
    /// The address of the admin endpoint, in plain HTTP [default: 127.0.0.1:9464].
    #[arg(long, value_name = "IP:PORT", env = "SSM_GATEWAY_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// The receiver of traces, OTLP over gRPC [default: none].
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_TRACE_ENDPOINT")]
    trace_endpoint: Option<String>,
    /// The format of log lines [default: human].
    #[arg(long, value_name = "FORMAT", env = "SSM_GATEWAY_LOG_FORMAT")]
    log_format: Option<Format>,
    /// Which log lines are written: a level, or a list of MODULE=LEVEL [default: info].
    #[arg(long, value_name = "FILTER", value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_LOG_FILTER")]
    log_filter: Option<String>,
}

impl Settings {
    /// Reads the file and applies the overrides.
    ///
    /// # Errors
    /// [`ConfigError`], if the file cannot be read or a setting is invalid.
    pub(super) fn read(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), |config| {
            let Config { edge, auth, upstream, admin, log, trace, .. } = config;
            edge.listen = self.listen.as_ref().unwrap_or(&edge.listen).clone();
            auth.allow_anonymous = self.allow_anonymous.unwrap_or(auth.allow_anonymous);
            auth.allow_plaintext_tokens = self.allow_plaintext_tokens.unwrap_or(auth.allow_plaintext_tokens);
            upstream.region = self.region.clone().or_else(|| upstream.region.take());
            upstream.endpoint_url = self.endpoint_url.clone().or_else(|| upstream.endpoint_url.take());
            upstream.profile = self.profile.clone().or_else(|| upstream.profile.take());
            admin.listen = self.admin_listen.unwrap_or(admin.listen);
            trace.endpoint = self.trace_endpoint.clone().or_else(|| trace.endpoint.take());
            log.format = self.log_format.unwrap_or(log.format);
            log.filter = self.log_filter.as_ref().unwrap_or(&log.filter).clone();
        })
    }
}
