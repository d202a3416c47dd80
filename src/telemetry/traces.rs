use std::{env, time::Duration};

use http::Uri;
use opentelemetry::{
    Context, KeyValue, global,
    trace::{Link, SpanKind, TraceId},
};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SamplingResult, SdkTracerProvider, ShouldSample},
};
use serde::{Deserialize, Serialize};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing::warn;

use crate::setting::{InvalidSetting, require};

/// The longest wait for the remaining spans at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The most fetches that a call's span is linked to: a stream has one per page.
const MAX_LINKS: u32 = 1024;

/// The settings of traces; the `[trace]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The receiver of OTLP over gRPC, such as `http://127.0.0.1:4317`; by default, tracing is off.
    pub endpoint: Option<String>,
    /// The share of calls that are traced, from 0 to 1, if the caller's `traceparent` does not decide.
    pub ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: None, ratio: 1.0 }
    }
}

/// Why tracing could not start.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The URL of the receiver is invalid.
    #[error("{0:?} is not the URL of an OTLP receiver, such as http://127.0.0.1:4317")]
    Endpoint(String, #[source] tonic::transport::Error),
    /// The exporter could not be built.
    #[error("cannot build the exporter of traces")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The tracing of the whole process.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// The endpoint is not a URL, or the ratio not a share.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let Self { endpoint, ratio } = self;
        let is_receiver = |url: Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        let is_url = |url: &String| !url.contains(['@', '?']) && url.parse().is_ok_and(is_receiver);
        let rule = "must be the URL of an OTLP receiver, without user and query, such as http://127.0.0.1:4317";
        require(endpoint.as_ref().is_none_or(is_url), "endpoint", rule)?;
        require((0.0..=1.0).contains(ratio), "ratio", "must be from 0 to 1")
    }

    /// Returns whether tracing is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Starts tracing for the whole process, if a receiver is configured. Spans are sent in batches in the background,
    /// and dropped if the receiver does not accept them: no call waits.
    ///
    /// # Errors
    /// [`TraceError`], if the URL is invalid or the exporter cannot be built.
    pub fn start(&self) -> Result<Option<Traces>, TraceError> {
        let Some(url) = &self.endpoint else { return Ok(None) };
        let failed = |error| TraceError::Endpoint(url.clone(), error);
        let mut endpoint = Endpoint::from_shared(url.clone()).map_err(failed)?;
        if url.starts_with("https://") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(failed)?;
        }
        let exporter = SpanExporter::builder().with_tonic().with_channel(endpoint.connect_lazy()).build()?;
        let mut resource = Resource::builder();
        let is_named = env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
        if !is_named && env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampled(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(self.ratio)))))
            .with_max_links_per_span(MAX_LINKS)
            .with_resource(resource.with_attribute(version).build())
            .build();
        global::set_tracer_provider(provider.clone());
        Ok(Some(Traces(provider)))
    }
}

/// Samples every fetch, because fetches are few and any call may be linked to one. Samples calls by their `traceparent`
/// and the ratio.
#[derive(Debug, Clone)]
struct Sampled(Sampler);

impl ShouldSample for Sampled {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if *kind == SpanKind::Client { &Sampler::AlwaysOn } else { &self.0 };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

impl Traces {
    /// Sends the remaining spans.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = stopped {
            warn!(%error, "the last spans were not sent");
        }
    }
}
