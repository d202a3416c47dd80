//! What administrators see of a running gateway.

use std::{
    cmp::Reverse,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{task::JoinSet, time};
use tower::BoxError;

use super::{Lasting, metrics};
use crate::{
    access::Principal,
    admin::{self, Caller, Calls, Failure, Listing, Memory, Reads, Status},
    config::Config,
    edge::{LimitsLayer, Stage},
    listing::{Counts, Durations, LastError, ListingError, ListingStatus, Listings, Outcome, Target},
    model::{Filters, Freshness, Query},
    upstream::UpstreamError,
};

/// When to ask a required target again that failed without advice.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The most of a listing's filters that is told: callers may send a mebibyte of them.
const MAX_FILTERS: usize = 200;
/// The most callers that are told of, those with the most calls.
const CALLERS: usize = 20;
/// The most listings that are told of one by one.
const LISTINGS: usize = 100;

/// A look at what goes on.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) config: Arc<Config>,
    pub(super) listings: Listings,
    pub(super) limits: LimitsLayer,
    pub(super) lasting: Lasting,
}

/// The view that holds now: another configuration brings another one.
#[derive(Debug)]
pub(super) struct Current(pub(super) ArcSwap<View>);

impl admin::Gateway for Current {
    fn metrics(&self) -> Result<String, BoxError> {
        Ok(metrics::text(&self.0.load())?)
    }

    fn unready(&self) -> Option<String> {
        self.0.load().unready()
    }

    fn status(&self) -> Status {
        self.0.load().status()
    }

    fn config(&self) -> Result<String, BoxError> {
        Ok(self.0.load().config.redacted()?)
    }
}

impl View {
    /// Why it should be sent no calls, if it should not.
    pub(super) fn unready(&self) -> Option<String> {
        let stage = self.lasting.stages.now();
        if stage != Stage::Serving {
            return Some(format!("the gateway is going away: {}", stage.as_str()));
        }
        let unanswered = || self.unanswered().map(|target| target.name().as_str()).collect::<Vec<_>>().join(", ");
        (!self.is_ready_for_good()).then(|| format!("AWS has not answered yet for {}", unanswered()))
    }

    /// Whether every required target has answered, now or at an earlier look.
    pub(super) fn is_ready_for_good(&self) -> bool {
        if self.unanswered().next().is_none() {
            self.lasting.has_been_ready.store(true, Relaxed);
        }
        self.lasting.has_been_ready.load(Relaxed)
    }

    /// The required targets that have not answered yet.
    fn unanswered(&self) -> impl Iterator<Item = &Target> {
        let is_required = |target: &&Target| self.config.is_required(target.name());
        self.listings.targets().filter(is_required).filter(|target| target.last_answered().is_none())
    }

    /// Asks the required targets until they have answered, or this is dropped.
    pub(super) fn ask_required(&self) -> JoinSet<()> {
        let queries = self.unanswered().map(|target| Query::new(target.name().clone(), Filters::Current(Vec::new())));
        let asks = queries.map(|query| ask(self.listings.clone(), query));
        asks.collect()
    }

    fn status(&self) -> Status {
        let Lasting { stages, metrics, started, has_reload_failed, .. } = &self.lasting;
        let (ended, failed) = metrics.ended_calls();
        let listings = self.listings.status();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: started.elapsed().as_secs(),
            stage: stages.now().as_str().to_owned(),
            unready: self.unready(),
            has_reload_failed: has_reload_failed.load(Relaxed),
            connections: metrics.connections(),
            calls: Calls { active: metrics.active_calls(), ended, failed },
            memory: Memory {
                bytes: self.listings.bytes(),
                max_bytes: self.listings.config().max_bytes,
                evictions: self.listings.evictions(),
            },
            targets: self.listings.targets().map(|target| self.target(target)).collect(),
            callers: callers(&self.limits),
            listing_count: listings.len(),
            listings: listings.iter().take(LISTINGS).map(listing).collect(),
        }
    }

    fn target(&self, target: &Target) -> admin::Target {
        let (pace, fetches) = (target.pace(), target.metrics().fetches());
        admin::Target {
            name: target.name().to_string(),
            region: target.region().to_owned(),
            is_default: self.config.default_target().as_ref() == Some(target.name()),
            is_required: self.config.is_required(target.name()),
            state: target.state().as_str().to_owned(),
            rate: pace.rate,
            max_rate: pace.max_rate,
            waiting: pace.waiting,
            fetches: fetches.values().map(Durations::count).sum(),
            throttled: fetches.get(UpstreamError::THROTTLED).map_or(0, Durations::count),
            retries: pace.retries,
            last_answered: target.last_answered().map(written),
            last_error: target.last_error().map(failure),
            reads: reads(target.metrics().readers()),
        }
    }
}

/// Reads the first page, for as long as it takes.
async fn ask(listings: Listings, query: Query) {
    loop {
        let Ok(mut reader) = listings.open(&query, Freshness::default(), None) else { return };
        let Err(failed) = reader.read(1).await else { return };
        time::sleep(failed.retry_after.unwrap_or(RETRY_DELAY)).await;
    }
}

fn callers(limits: &LimitsLayer) -> Vec<Caller> {
    let mut callers = limits.callers();
    callers.sort_unstable_by_key(|(principal, calls)| (Reverse(*calls), principal.clone()));
    let caller = |(principal, active): (Principal, usize)| Caller { principal: principal.to_string(), active };
    callers.into_iter().take(CALLERS).map(caller).collect()
}

fn listing(status: &ListingStatus) -> Listing {
    Listing {
        target: status.query.target().to_string(),
        filters: cut(status.query.filters().to_string()),
        state: status.state.as_str().to_owned(),
        is_advancing: status.is_advancing,
        age_seconds: status.age.map(|age| age.as_secs_f64()),
        ttl_seconds: status.ttl.as_secs_f64(),
        bytes: status.bytes,
        pages: status.pages,
        readers: status.readers,
        slowest_reader_seconds: status.slowest.as_secs_f64(),
        reads: reads(status.counts),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_FILTERS {
        text.truncate(text.floor_char_boundary(MAX_FILTERS));
        text.push('…');
    }
    text
}

fn reads(counts: Counts) -> Reads {
    Reads {
        hit: counts.of(Outcome::Hit),
        miss: counts.of(Outcome::Miss),
        coalesced: counts.of(Outcome::Coalesced),
        stale: counts.of(Outcome::Stale),
        refused: counts.of(Outcome::Refused),
        failed: counts.of(Outcome::Failed),
    }
}

fn failure(LastError { at, error }: LastError) -> Failure {
    let aws = match &*error {
        ListingError::Upstream(error) => error.aws(),
        _ => None,
    };
    Failure {
        at: written(at),
        what: error.to_string(),
        aws_error_code: aws.and_then(|aws| aws.code.clone()),
        aws_request_id: aws.and_then(|aws| aws.request_id.clone()),
    }
}

fn written(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
