//! What Prometheus scrapes. The edge and the targets count as they go; everything else is read at the scrape, from the
//! numbers that listings keep anyway. Each scrape has a registry of its own, so that a target that a reload removed is
//! gone from it.

use std::{sync::atomic::Ordering::Relaxed, time::UNIX_EPOCH};

use prometheus::{CounterVec, Error, GaugeVec, Opts, Registry, TextEncoder};

use super::{generation::Generation, process_usage::ProcessUsage};
use crate::{
    edge::Stage,
    read::{ListingState, ListingStatus, Listings, Outcome, Target, TargetState},
    source::Pace,
};

/// Returns all metrics in Prometheus's text format.
///
/// # Errors
/// Two metrics have the same name and labels.
pub(super) fn text(generation: &Generation) -> Result<String, Error> {
    let scrape = Scrape(Registry::new());
    generation.process.metrics.register(&scrape.0)?;
    scrape.add_process(&ProcessUsage::read())?;
    scrape.add_gateway(generation)?;
    scrape.add_listings(&generation.listings)?;
    scrape.add_targets(&generation.listings)?;
    TextEncoder::new().encode_to_string(&scrape.0.gather())
}

/// One scrape.
struct Scrape(Registry);

impl Scrape {
    /// Adds the metrics that every client library of Prometheus has, but for those that the system does not report.
    fn add_process(&self, process: &ProcessUsage) -> Result<(), Error> {
        let value = |value: Option<f64>| value.map(|value| ([], value));
        let help = "User and system CPU time, in seconds, to the hundredth.";
        self.counters("process_cpu_seconds_total", help, [], value(process.cpu_seconds))?;
        self.gauges("process_open_fds", "Open file descriptors.", [], value(process.open_fds))?;
        let help = "The most open file descriptors that there may be.";
        self.gauges("process_max_fds", help, [], value(process.max_fds))?;
        self.gauges("process_virtual_memory_bytes", "Virtual memory, in bytes.", [], value(process.virtual_bytes))?;
        self.gauges("process_resident_memory_bytes", "Resident memory, in bytes.", [], value(process.resident_bytes))?;
        let help = "When the process started, in seconds since 1970.";
        self.gauges("process_start_time_seconds", help, [], value(process.started))?;
        self.gauges("process_threads", "Threads of the operating system.", [], value(process.threads))
    }

    fn add_gateway(&self, generation: &Generation) -> Result<(), Error> {
        let version = [([env!("CARGO_PKG_VERSION")], 1.0)];
        self.gauges("ssm_gateway_build_info", "Always 1.", ["version"], version)?;
        let is_ready = generation.unready().is_none();
        self.gauge("ssm_gateway_ready", "Whether it should be sent calls.", of_bool(is_ready))?;
        let help = "Whether the last configuration that was loaded is in use.";
        let is_reloaded = !generation.process.has_reload_failed.load(Relaxed);
        self.gauge("ssm_gateway_config_last_reload_successful", help, of_bool(is_reloaded))?;
        let now = generation.process.stages.now();
        let stages = Stage::ALL.map(|stage| ([stage.as_str()], of_bool(stage == now)));
        self.gauges("ssm_gateway_stage", "1 for how far it is on its way to the end.", ["stage"], stages)
    }

    fn add_listings(&self, listings: &Listings) -> Result<(), Error> {
        let all = listings.status();
        let of = |target: &Target| all.iter().filter(|listing| listing.query.target() == target.name()).collect();
        let by_target: Vec<(&Target, Vec<&ListingStatus>)> =
            listings.targets().map(|target| (target, of(target))).collect();
        let states = by_target.iter().flat_map(|(target, all)| {
            ListingState::ALL.map(|state| {
                let count = all.iter().filter(|listing| listing.state == state).count();
                ([target.name().as_str(), state.as_str()], of_count(count))
            })
        });
        self.gauges("ssm_gateway_listings", "Listings, by how far they are.", ["target", "state"], states)?;
        let each = |value: fn(&[&ListingStatus]) -> f64| {
            by_target.iter().map(move |(target, all)| ([target.name().as_str()], value(all)))
        };
        let readers = each(|all| of_count(all.iter().map(|listing| listing.readers).sum()));
        self.gauges("ssm_gateway_listing_readers", "Readers of listings.", ["target"], readers)?;
        let help = "How long the slowest reader has taken nothing, though there is something to take.";
        let slowest = each(|all| {
            let slowest = all.iter().map(|listing| listing.slowest).max();
            slowest.map_or(0.0, |slowest| slowest.as_secs_f64())
        });
        self.gauges("ssm_gateway_listing_slowest_reader_seconds", help, ["target"], slowest)?;
        self.gauge("ssm_gateway_listing_walks", "Walks that advance.", of_count(listings.walks()))?;
        self.gauge("ssm_gateway_listing_bytes", "The memory of all listings.", of_count(listings.bytes()))?;
        let most = of_count(listings.config().max_bytes);
        self.gauge("ssm_gateway_listing_max_bytes", "The most that it may be.", most)?;
        let help = "Listings that were given up for want of memory.";
        let evictions = [([], of_total(listings.evictions()))];
        self.counters("ssm_gateway_listing_evictions_total", help, [], evictions)
    }

    fn add_targets(&self, listings: &Listings) -> Result<(), Error> {
        let targets: Vec<&Target> = listings.targets().collect();
        let reads = targets.iter().flat_map(|target| {
            let readers = target.metrics().readers();
            Outcome::ALL.map(|outcome| ([target.name().as_str(), outcome.as_str()], of_total(readers.of(outcome))))
        });
        let help = "Readers of listings, by what came of them.";
        self.counters("ssm_gateway_reads_total", help, ["target", "outcome"], reads)?;
        for target in &targets {
            target.metrics().register(&self.0)?;
        }
        let states = targets.iter().flat_map(|target| {
            let now = target.state();
            TargetState::ALL.map(|state| ([target.name().as_str(), state.as_str()], of_bool(state == now)))
        });
        self.gauges("ssm_gateway_target_state", "1 for how a target is.", ["target", "state"], states)?;
        let answered = targets.iter().map(|target| {
            let answered = target.last_answered().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            ([target.name().as_str()], answered.map_or(0.0, |answered| answered.as_secs_f64()))
        });
        let help = "When AWS last answered, in seconds since 1970; 0 if it never did.";
        self.gauges("ssm_gateway_target_last_answered_timestamp_seconds", help, ["target"], answered)?;
        self.add_paces(&targets)
    }

    fn add_paces(&self, targets: &[&Target]) -> Result<(), Error> {
        let paces: Vec<(&str, Pace)> = targets.iter().map(|target| (target.name().as_str(), target.pace())).collect();
        let each = |value: fn(&Pace) -> f64| paces.iter().map(move |(target, pace)| ([*target], value(pace)));
        let retries = each(|pace| of_total(pace.retries));
        self.counters("ssm_gateway_upstream_retries_total", "Requests that were sent again.", ["target"], retries)?;
        let help = "Nodes with invalid characters or timestamps in AWS's answer, which are replaced or left out.";
        let repaired = each(|pace| of_total(pace.repaired));
        self.counters("ssm_gateway_upstream_repaired_nodes_total", help, ["target"], repaired)?;
        let help = "Requests a second that AWS may be sent now.";
        self.gauges("ssm_gateway_upstream_rate", help, ["target"], each(|pace| pace.rate))?;
        let help = "Requests a second that AWS may be sent at most.";
        self.gauges("ssm_gateway_upstream_max_rate", help, ["target"], each(|pace| pace.max_rate))?;
        let waiting = each(|pace| of_count(pace.waiting));
        self.gauges("ssm_gateway_upstream_waiting", "Fetches that wait to be admitted.", ["target"], waiting)
    }

    fn gauge(&self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.gauges(name, help, [], [([], value)])
    }

    fn gauges<'a, const LABELS: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; LABELS],
        values: impl IntoIterator<Item = ([&'a str; LABELS], f64)>,
    ) -> Result<(), Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            gauges.get_metric_with_label_values(&labels)?.set(value);
        }
        self.0.register(Box::new(gauges))
    }

    fn counters<'a, const LABELS: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; LABELS],
        values: impl IntoIterator<Item = ([&'a str; LABELS], f64)>,
    ) -> Result<(), Error> {
        let counters = CounterVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            counters.get_metric_with_label_values(&labels)?.inc_by(value);
        }
        self.0.register(Box::new(counters))
    }
}

fn of_bool(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn of_count(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn of_total(total: u64) -> f64 {
    total as f64
}
