//! What Prometheus reads. The edge counts as it goes; all else is looked at when it is asked for, so that a target which is none any
//! more is gone from here, too, and the hot path counts nothing twice.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::{
    Error, Registry, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{process::Process, view::View};
use crate::{
    edge::{self, Stage},
    listing::{Durations, ListingState, ListingStatus, Listings, Outcome, Target, TargetState},
    upstream::Pace,
};

/// Returns the edge's metrics, and a registry that they are registered with.
pub(super) fn counting() -> Result<(edge::Metrics, Registry), Error> {
    let (edge, registry) = (edge::Metrics::new()?, Registry::new());
    edge.register(&registry)?;
    Ok((edge, registry))
}

/// All metrics as text.
pub(super) fn text(view: &View) -> Result<String, Error> {
    let mut families = view.lasting.registry.gather();
    let mut more = Families(Vec::new());
    more.of_process(&Process::read());
    more.of_gateway(view);
    more.of_listings(&view.listings);
    more.of_targets(&view.listings);
    // A family without metrics is refused by the encoder.
    families.extend(more.0.into_iter().filter(|family| !family.get_metric().is_empty()));
    TextEncoder::new().encode_to_string(&families)
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

struct Families(Vec<MetricFamily>);

impl Families {
    /// The metrics that every client library of Prometheus gives, of which those are absent that the system does not report.
    fn of_process(&mut self, process: &Process) {
        let value = |value: Option<f64>| value.map(|value| (vec![], value));
        let help = "User and system CPU time, in seconds, to the hundredth.";
        self.counter("process_cpu_seconds_total", help, value(process.cpu_seconds));
        self.gauge("process_open_fds", "Open file descriptors.", value(process.open_fds));
        self.gauge("process_max_fds", "The most open file descriptors that there may be.", value(process.max_fds));
        self.gauge("process_virtual_memory_bytes", "Virtual memory, in bytes.", value(process.virtual_bytes));
        self.gauge("process_resident_memory_bytes", "Resident memory, in bytes.", value(process.resident_bytes));
        let help = "When the process started, in seconds since 1970.";
        self.gauge("process_start_time_seconds", help, value(process.started));
        self.gauge("process_threads", "Threads of the operating system.", value(process.threads));
    }

    fn of_gateway(&mut self, view: &View) {
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        self.gauge("ssm_gateway_build_info", "Always 1.", [(version, 1.0)]);
        let is_ready = view.unready().is_none();
        self.gauge("ssm_gateway_ready", "Whether it should be sent calls.", [(vec![], of_bool(is_ready))]);
        let is_reloaded = !view.lasting.has_reload_failed.load(Relaxed);
        let help = "Whether the configuration that it was told last is in use.";
        self.gauge("ssm_gateway_config_last_reload_successful", help, [(vec![], of_bool(is_reloaded))]);
        let now = view.lasting.stages.now();
        let stages = Stage::ALL.map(|stage| (vec![("stage", stage.as_str())], of_bool(stage == now)));
        self.gauge("ssm_gateway_stage", "1 for how far it is on its way to the end.", stages);
    }

    fn of_listings(&mut self, listings: &Listings) {
        let all = listings.status();
        let of = |target: &Target| all.iter().filter(|listing| listing.query.target() == target.name()).collect();
        let by_target: Vec<(&Target, Vec<&ListingStatus>)> =
            listings.targets().map(|target| (target, of(target))).collect();
        let states = by_target.iter().flat_map(|(target, all)| {
            ListingState::ALL.map(|state| {
                let labels = vec![("target", target.name().as_str()), ("state", state.as_str())];
                (labels, count(all.iter().filter(|listing| listing.state == state).count()))
            })
        });
        self.gauge("ssm_gateway_listings", "Listings, by how far they are.", states);
        let readers = by_target
            .iter()
            .map(|(target, all)| (of_target(target), count(all.iter().map(|listing| listing.readers).sum())));
        self.gauge("ssm_gateway_listing_readers", "Readers of listings.", readers);
        let slowest = by_target.iter().map(|(target, all)| {
            let slowest = all.iter().map(|listing| listing.slowest).max();
            (of_target(target), slowest.unwrap_or_default().as_secs_f64())
        });
        let help = "How long the slowest reader has taken nothing, though there is something to take.";
        self.gauge("ssm_gateway_listing_slowest_reader_seconds", help, slowest);
        self.gauge("ssm_gateway_listing_walks", "Walks that advance.", [(vec![], count(listings.walks()))]);
        self.gauge("ssm_gateway_listing_bytes", "The memory of all listings.", [(vec![], count(listings.bytes()))]);
        let most = count(listings.config().max_bytes);
        self.gauge("ssm_gateway_listing_max_bytes", "The most that it may be.", [(vec![], most)]);
        let help = "Listings that were given up for want of memory.";
        self.counter("ssm_gateway_listing_evictions_total", help, [(vec![], total(listings.evictions()))]);
    }

    fn of_targets(&mut self, listings: &Listings) {
        let targets: Vec<&Target> = listings.targets().collect();
        let reads = targets.iter().flat_map(|target| {
            let readers = target.metrics().readers();
            Outcome::ALL.map(|outcome| {
                (vec![("target", target.name().as_str()), ("outcome", outcome.as_str())], total(readers.of(outcome)))
            })
        });
        self.counter("ssm_gateway_reads_total", "Readers of listings, by what came of them.", reads);
        let help = "How long fetches of pages took, retries included, by what came of them.";
        let fetches = targets.iter().flat_map(|target| {
            let fetches = target.metrics().fetches().into_iter();
            fetches
                .map(|(outcome, durations)| (vec![("target", target.name().as_str()), ("outcome", outcome)], durations))
        });
        self.histogram("ssm_gateway_upstream_fetch_duration_seconds", help, fetches);
        let help = "How long fetches waited for their turn.";
        let waits = targets.iter().map(|target| (of_target(target), target.metrics().waits()));
        self.histogram("ssm_gateway_upstream_wait_seconds", help, waits);
        let paces: Vec<(&Target, Pace)> = targets.iter().map(|target| (*target, target.pace())).collect();
        let each = |what: fn(&Pace) -> f64| paces.iter().map(move |(target, pace)| (of_target(target), what(pace)));
        let retries = each(|pace| total(pace.retries));
        self.counter("ssm_gateway_upstream_retries_total", "Requests that were sent again.", retries);
        let repaired = each(|pace| total(pace.repaired));
        let help = "Nodes with invalid characters or timestamps in AWS's answer, which are replaced or left out.";
        self.counter("ssm_gateway_upstream_repaired_nodes_total", help, repaired);
        let rate = each(|pace| pace.rate);
        self.gauge("ssm_gateway_upstream_rate", "Requests a second that AWS may be sent now.", rate);
        let most = each(|pace| pace.max_rate);
        self.gauge("ssm_gateway_upstream_max_rate", "Requests a second that AWS may be sent at most.", most);
        let waiting = each(|pace| count(pace.waiting));
        self.gauge("ssm_gateway_upstream_waiting", "Fetches that wait for their turn.", waiting);
        let states = targets.iter().flat_map(|target| {
            let now = target.state();
            TargetState::ALL.map(|state| {
                (vec![("target", target.name().as_str()), ("state", state.as_str())], of_bool(state == now))
            })
        });
        self.gauge("ssm_gateway_target_state", "1 for how a target is.", states);
        let answered = targets.iter().map(|target| {
            let answered = target.last_answered().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            (of_target(target), answered.unwrap_or_default().as_secs_f64())
        });
        let help = "When AWS last answered, in seconds since 1970; 0 if it never did.";
        self.gauge("ssm_gateway_target_last_answered_timestamp_seconds", help, answered);
    }

    fn gauge<'a>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let (mut metric, mut gauge) = (Metric::from_label(pairs(labels)), Gauge::default());
            gauge.set_value(value);
            metric.set_gauge(gauge);
            metric
        });
        self.add(name, help, MetricType::GAUGE, metrics.collect());
    }

    fn counter<'a>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let (mut metric, mut counter) = (Metric::from_label(pairs(labels)), Counter::default());
            counter.set_value(value);
            metric.set_counter(counter);
            metric
        });
        self.add(name, help, MetricType::COUNTER, metrics.collect());
    }

    fn histogram<'a>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels<'a>, Durations)>) {
        let metrics = values.into_iter().map(|(labels, durations)| {
            let (mut metric, mut histogram) = (Metric::from_label(pairs(labels)), Histogram::default());
            let mut so_far = 0;
            let buckets = Durations::BOUNDS.iter().zip(durations.counts).map(|(bound, count)| {
                so_far += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(so_far);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(durations.count());
            histogram.set_sample_sum(durations.sum.as_secs_f64());
            metric.set_histogram(histogram);
            metric
        });
        self.add(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn of_target(target: &Target) -> Labels<'_> {
    vec![("target", target.name().as_str())]
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    labels.into_iter().map(pair).collect()
}

fn of_bool(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn count(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn total(total: u64) -> f64 {
    total as f64
}
