use std::{net::SocketAddr, path::PathBuf};

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};

use crate::{
    config::{Config, ConfigError},
    edge::Address,
    telemetry::Format,
};

/// What a gateway is told: by its configuration file, by the environment, and by flags, of which the later win.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// The configuration file, in TOML.
    #[arg(long, value_name = "FILE", env = "SSM_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// The address to listen on: IP:PORT, or unix:PATH [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDR", env = "SSM_GATEWAY_LISTEN")]
    listen: Option<Address>,
    /// Admit callers who prove nothing, though others could or they come from other machines; on loopback, where nobody can prove
    /// anything, they are admitted anyway.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), env = "SSM_GATEWAY_ALLOW_ANONYMOUS")]
    allow_anonymous: Option<bool>,
    /// Take bearer tokens over connections that others could read.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), env = "SSM_GATEWAY_ALLOW_PLAINTEXT_TOKENS")]
    allow_plaintext_tokens: Option<bool>,
    /// The AWS region to ask [default: AWS's own variables and files].
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_REGION")]
    region: Option<String>,
    /// Another endpoint than the region's own, such as a simulator's.
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_ENDPOINT_URL")]
    endpoint_url: Option<String>,
    /// The profile in AWS's shared files.
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_PROFILE")]
    profile: Option<String>,
    /// The address that administrators ask at, in HTTP [default: 127.0.0.1:9464].
    #[arg(long, value_name = "IP:PORT", env = "SSM_GATEWAY_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Where to send traces, by OTLP over gRPC [default: nowhere].
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_TRACE_ENDPOINT")]
    trace_endpoint: Option<String>,
    /// How log lines look [default: human].
    #[arg(long, value_name = "FORMAT", env = "SSM_GATEWAY_LOG_FORMAT")]
    log_format: Option<Format>,
    /// Which log lines are written: a level, or a list of MODULE=LEVEL [default: info].
    #[arg(long, value_name = "FILTER", value_parser = NonEmptyStringValueParser::new(), env = "SSM_GATEWAY_LOG_FILTER")]
    log_filter: Option<String>,
}

impl Settings {
    /// Reads all of it, the file anew each time.
    ///
    /// # Errors
    /// [`ConfigError`].
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
