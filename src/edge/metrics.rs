use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use tonic::Code;

use super::cut::Cut;
use crate::grpc::{Failure, Reason, Route, code_name};

/// The bounds of the buckets of call durations, in seconds, by OpenTelemetry's conventions.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// The method of all calls to methods that the gateway does not have, by the same conventions.
const OTHER: &str = "_OTHER";
/// How many status codes there are.
const CODES: usize = 17;

/// The metrics of the edge. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    calls: HistogramVec,
    active: IntGaugeVec,
    refused: IntCounterVec,
    methods: HashMap<Route, Arc<MethodMetrics>>,
    other: Arc<MethodMetrics>,
    connections: IntGauge,
    accepted: IntCounter,
    turned_away: IntCounter,
    failed_handshakes: IntCounter,
    drained: IntCounterVec,
    cut: IntCounterVec,
}

/// The metrics of one method's calls.
struct MethodMetrics {
    name: String,
    active: IntGauge,
    by_code: [OnceLock<Histogram>; CODES],
}

/// A call that counts as active until it is dropped.
#[derive(Debug)]
pub(super) struct ActiveCall(Arc<MethodMetrics>);

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection(IntGauge);

impl Metrics {
    /// Creates the metrics. Calls are counted by method; calls to methods that the gateway does not have, together.
    ///
    /// # Errors
    /// If Prometheus does not accept one of the names here, which would be a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let duration =
            HistogramOpts::new("rpc_server_call_duration_seconds", "Duration of calls, of streams to their end.")
                .const_label("rpc_system_name", "grpc")
                .buckets(BUCKETS.to_vec());
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let active = IntGaugeVec::new(Opts::new("ssm_gateway_active_calls", "Calls in progress."), &["rpc_method"])?;
        let method = |name: String| {
            let active = active.with_label_values(&[name.as_str()]);
            let by_code = [const { OnceLock::new() }; CODES];
            Arc::new(MethodMetrics { name, active, by_code })
        };
        let refused =
            Opts::new("ssm_gateway_refused_calls_total", "Calls that failed for a reason of the gateway's own.");
        let refused = IntCounterVec::new(refused, &["reason", "cause"])?;
        let drained = Opts::new("ssm_gateway_connections_drained_total", "Connections whose peer was sent elsewhere.");
        let drained = IntCounterVec::new(drained, &["reason"])?;
        let cut = Opts::new("ssm_gateway_connections_cut_total", "Connections that were cut for what their peer did.");
        let cut = IntCounterVec::new(cut, &["reason"])?;
        // Every series exists from the start, so that its first event is an increase.
        for reason in Reason::ALL {
            refused.with_label_values(&labels(reason));
        }
        for reason in ["age", "stop"] {
            drained.with_label_values(&[reason]);
        }
        for reason in Cut::ALL {
            cut.with_label_values(&[reason.as_str()]);
        }
        Ok(Self(Arc::new(Instruments {
            calls: HistogramVec::new(duration, &["rpc_method", "rpc_response_status_code"])?,
            refused,
            methods: Route::ALL.into_iter().map(|route| (route, method(route.full_name()))).collect(),
            other: method(OTHER.to_owned()),
            active,
            connections: IntGauge::new("ssm_gateway_connections", "Connections of callers.")?,
            accepted: counter("ssm_gateway_connections_accepted_total", "Connections that were accepted.")?,
            turned_away: counter(
                "ssm_gateway_connections_refused_total",
                "Connections that were closed at once, at the limit of connections.",
            )?,
            failed_handshakes: counter("ssm_gateway_tls_handshake_failures_total", "TLS handshakes that failed.")?,
            drained,
            cut,
        })))
    }

    /// Registers the metrics.
    ///
    /// # Errors
    /// If they are registered already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let counted = &*self.0;
        registry.register(Box::new(counted.calls.clone()))?;
        registry.register(Box::new(counted.active.clone()))?;
        registry.register(Box::new(counted.refused.clone()))?;
        registry.register(Box::new(counted.connections.clone()))?;
        registry.register(Box::new(counted.accepted.clone()))?;
        registry.register(Box::new(counted.turned_away.clone()))?;
        registry.register(Box::new(counted.failed_handshakes.clone()))?;
        registry.register(Box::new(counted.drained.clone()))?;
        registry.register(Box::new(counted.cut.clone()))
    }

    /// Returns how many calls are in progress.
    #[must_use]
    pub fn active_calls(&self) -> i64 {
        self.methods().map(|method| method.active.get()).sum()
    }

    /// Returns how many calls have ended, and how many of them with an error.
    #[must_use]
    pub fn ended_calls(&self) -> (u64, u64) {
        let of = |codes: std::ops::Range<usize>| {
            let histograms = self.methods().flat_map(|method| method.by_code.get(codes.clone()).unwrap_or_default());
            histograms.filter_map(OnceLock::get).map(Histogram::get_sample_count).sum::<u64>()
        };
        (of(0..CODES), of(1..CODES))
    }

    /// Returns how many connections are open.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.0.connections.get()
    }

    fn methods(&self) -> impl Iterator<Item = &MethodMetrics> {
        self.0.methods.values().chain([&self.0.other]).map(|method| &**method)
    }

    /// Counts a call as active until the result is dropped.
    pub(super) fn call(&self, route: Option<Route>) -> ActiveCall {
        let method = route.and_then(|route| self.0.methods.get(&route)).unwrap_or(&self.0.other);
        method.active.inc();
        ActiveCall(Arc::clone(method))
    }

    /// Counts a call that has ended.
    pub(super) fn ended(&self, ActiveCall(method): &ActiveCall, code: Code, took: Duration) {
        if let Some(histogram) = method.by_code.get(code as usize) {
            let labels = [method.name.as_str(), code_name(code)];
            histogram.get_or_init(|| self.0.calls.with_label_values(&labels)).observe(took.as_secs_f64());
        }
    }

    /// Counts a failure for a reason of the gateway's own; those that AWS worded are counted with its fetches.
    pub(super) fn failed(&self, failure: &Failure) {
        if let Some(reason) = failure.own_reason().filter(|reason| reason.is_refusal()) {
            self.0.refused.with_label_values(&labels(reason)).inc();
        }
    }

    pub(super) fn accepted(&self) -> OpenConnection {
        self.0.accepted.inc();
        self.0.connections.inc();
        OpenConnection(self.0.connections.clone())
    }

    pub(super) fn turned_away(&self) {
        self.0.turned_away.inc();
    }

    pub(super) fn failed_handshake(&self) {
        self.0.failed_handshakes.inc();
    }

    /// Counts a connection whose peer was sent elsewhere, because of its `age` or of a `stop`.
    pub(super) fn drained(&self, reason: &str) {
        self.0.drained.with_label_values(&[reason]).inc();
    }

    /// Counts a connection that was cut.
    pub(super) fn cut(&self, why: Cut) {
        self.0.cut.with_label_values(&[why.as_str()]).inc();
    }
}

fn labels(reason: Reason) -> [&'static str; 2] {
    [reason.as_str(), reason.cause().unwrap_or_default()]
}

impl fmt::Debug for MethodMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MethodMetrics")
            .field("name", &self.name)
            .field("active", &self.active.get())
            .finish_non_exhaustive()
    }
}

impl ActiveCall {
    /// Returns the name of the method that the call is counted by.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the name of the method; none if the gateway does not have it.
    pub(super) fn method(&self) -> Option<&str> {
        Some(self.0.name.as_str()).filter(|name| *name != OTHER)
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
