//! What administrators are answered: the metrics, whether the gateway is ready, its status and its configuration.

use std::{cmp::Reverse, sync::atomic::Ordering::Relaxed, time::SystemTime};

use prometheus::Histogram;
use tower::BoxError;

use super::{current::CurrentGeneration, generation::Generation, metrics};
use crate::{
    access::Principal,
    admin::{self, Caller, Calls, Failure, Listing, Memory, Reads, Status},
    edge::LimitsLayer,
    read::{Counts, LastError, ListingError, ListingStatus, Outcome, Target},
    source::UpstreamError,
};

/// The longest text of a listing's filters, in bytes: callers may send a mebibyte of them.
const MAX_FILTERS: usize = 200;
/// The most callers in a status, those with the most calls.
const MAX_CALLERS: usize = 20;
/// The most listings in a status, those used last.
const MAX_LISTINGS: usize = 100;

impl<S: Send + Sync + 'static> admin::Gateway for CurrentGeneration<S> {
    fn metrics(&self) -> Result<String, BoxError> {
        Ok(metrics::text(&self.get())?)
    }

    fn unready(&self) -> Option<String> {
        self.get().unready()
    }

    fn status(&self) -> Status {
        self.get().status()
    }

    fn config(&self) -> Result<String, BoxError> {
        Ok(self.get().config.redacted()?)
    }
}

impl Generation {
    fn status(&self) -> Status {
        let process = &self.process;
        let (ended, failed) = process.metrics.ended_calls();
        let listings = self.listings.status();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: process.started.elapsed().as_secs(),
            stage: process.stages.now().as_str().to_owned(),
            unready: self.unready(),
            has_reload_failed: process.has_reload_failed.load(Relaxed),
            connections: process.metrics.connections(),
            calls: Calls { active: process.metrics.active_calls(), ended, failed },
            memory: Memory {
                bytes: self.listings.bytes(),
                max_bytes: self.listings.config().max_bytes,
                evictions: self.listings.evictions(),
            },
            targets: self.listings.targets().map(|target| self.target(target)).collect(),
            callers: callers(&self.limits),
            listing_count: listings.len(),
            listings: listings.iter().take(MAX_LISTINGS).map(listing).collect(),
        }
    }

    fn target(&self, target: &Target) -> admin::Target {
        let pace = target.pace();
        let fetches = target.metrics().fetches();
        admin::Target {
            name: target.name().to_string(),
            region: target.region().to_owned(),
            is_default: self.config.default_target().as_ref() == Some(target.name()),
            is_required: self.config.is_required(target.name()),
            state: target.state().as_str().to_owned(),
            rate: pace.rate,
            max_rate: pace.max_rate,
            waiting: pace.waiting,
            fetches: fetches.values().map(Histogram::get_sample_count).sum(),
            throttled: fetches.get(UpstreamError::THROTTLED).map_or(0, Histogram::get_sample_count),
            retries: pace.retries,
            last_answered: target.last_answered().map(rfc3339),
            last_error: target.last_error().map(failure),
            reads: reads(target.metrics().readers()),
        }
    }
}

fn callers(limits: &LimitsLayer) -> Vec<Caller> {
    let mut callers = limits.callers();
    callers.sort_unstable_by_key(|(principal, calls)| (Reverse(*calls), principal.clone()));
    let caller = |(principal, active): (Principal, usize)| Caller { principal: principal.to_string(), active };
    callers.into_iter().take(MAX_CALLERS).map(caller).collect()
}

fn listing(status: &ListingStatus) -> Listing {
    Listing {
        target: status.query.target().to_string(),
        filters: shortened(status.query.filters().to_string()),
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

fn shortened(mut text: String) -> String {
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
        at: rfc3339(at),
        what: error.to_string(),
        aws_error_code: aws.and_then(|aws| aws.code.clone()),
        aws_request_id: aws.and_then(|aws| aws.request_id.clone()),
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
