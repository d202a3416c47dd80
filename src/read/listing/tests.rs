//! The rules of DESIGN.md, over a source under the test's hand and the paused clock.

mod cursors;
mod failures;
mod freshness;
mod memory;
mod messages;
mod model;
mod sharing;
mod storms;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use prost::Message as _;
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use crate::{
    model::{Filter, Filters, Freshness, Query, RecordsBuilder, Scope, TargetName},
    proto::{InstanceInformation, StreamInstanceInformationResponse},
    read::{
        Config, Head, InvalidCursor, Listings, OpenError, Outcome, Page, ReadError, Reader, Render, Served, Target,
        WholePage, lock,
    },
    source::{AwsError, FetchError, Identity, Origin, Priority, Request, Sent, Source, UpstreamError, UpstreamPage},
};

const SECOND: Duration = Duration::from_secs(1);
/// How long the upstream takes for a page.
const LATENCY: Duration = Duration::from_millis(100);

/// An upstream whose pages are given. Each walk from the start is numbered, and its nodes bear that number as their
/// name.
#[derive(Debug)]
struct Fake {
    pages: Mutex<Vec<Vec<String>>>,
    /// What it was asked, in order: the token, and when.
    asked: Mutex<Vec<(Option<String>, Instant)>>,
    /// How the next fetches fail, or that they do not.
    failures: Mutex<VecDeque<Option<UpstreamError>>>,
    /// Every so manieth fetch is throttled; 0 for none.
    throttles_every: Mutex<usize>,
    walks: Mutex<usize>,
    in_flight: Mutex<InFlight>,
    repeats_tokens: Mutex<bool>,
    /// Whether nobody is admitted any more, and who asked to be.
    is_jammed: Mutex<bool>,
    /// Whether a failure admits all who wait, in the moment before it is known.
    admits_by_failing: Mutex<bool>,
    admitted: Notify,
    queued: Mutex<Vec<Priority>>,
    /// For whom pages were fetched, and when they must have been sent at the earliest.
    requests: Mutex<Vec<(Priority, Option<Instant>)>>,
    latency: Mutex<Duration>,
    /// How much is in each node, in turn, beside its names.
    padding: Mutex<Vec<usize>>,
}

#[derive(Debug, Default)]
struct InFlight {
    now: usize,
    most: usize,
}

impl Fake {
    /// Pages of these many nodes, `i-0` and so on.
    fn of_sizes(sizes: &[usize]) -> Arc<Self> {
        let mut names = (0..).map(|index| format!("i-{index}"));
        let pages = sizes.iter().map(|&size| names.by_ref().take(size).collect()).collect();
        Arc::new(Self {
            pages: Mutex::new(pages),
            asked: Mutex::default(),
            failures: Mutex::default(),
            throttles_every: Mutex::default(),
            walks: Mutex::default(),
            in_flight: Mutex::default(),
            repeats_tokens: Mutex::default(),
            is_jammed: Mutex::default(),
            admits_by_failing: Mutex::default(),
            admitted: Notify::new(),
            queued: Mutex::default(),
            requests: Mutex::default(),
            latency: Mutex::new(LATENCY),
            // About as large as real ones.
            padding: Mutex::new(vec![200]),
        })
    }

    fn asked(&self) -> usize {
        lock(&self.asked).len()
    }

    /// The next fetches fail so.
    fn fail(&self, failures: impl IntoIterator<Item = UpstreamError>) {
        lock(&self.failures).extend(failures.into_iter().map(Some));
    }

    /// So many of the next fetches do not.
    fn succeed(&self, times: usize) {
        lock(&self.failures).extend((0..times).map(|_| None));
    }

    fn answer(&self, token: Option<&str>, sent: Sent) -> UpstreamPage {
        let (walk, index) = match token {
            None => {
                *lock(&self.walks) += 1;
                (*lock(&self.walks), 0)
            }
            Some(token) => {
                let (walk, index) = token.split_once('/').unwrap();
                (walk.parse().unwrap(), index.parse().unwrap())
            }
        };
        let pages = lock(&self.pages);
        let mut records = RecordsBuilder::default();
        let padding = lock(&self.padding);
        let before: usize = pages[..index].iter().map(Vec::len).sum();
        for (id, padding) in pages[index].iter().zip(padding.iter().cycle().skip(before)) {
            records.push(&node(id, walk, *padding).encode_to_vec());
        }
        let next = if *lock(&self.repeats_tokens) { index.max(1) } else { index + 1 };
        let next_token = (index + 1 < pages.len()).then(|| format!("{walk}/{next}"));
        let origin = Origin::new(Some(&format!("aws-{walk}-{index}")));
        UpstreamPage { records: records.build(), next_token, sent, origin }
    }
}

impl Source for Fake {
    fn admit(&self, priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>> {
        lock(&self.queued).push(priority);
        let is_jammed = *lock(&self.is_jammed);
        async move {
            if is_jammed {
                self.admitted.notified().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn page<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        let Request { token, priority, not_before, .. } = request;
        let sent = Sent::now(wall);
        lock(&self.requests).push((priority, not_before));
        lock(&self.asked).push((token.map(str::to_owned), Instant::now()));
        let every = *lock(&self.throttles_every);
        if every > 0 && self.asked().is_multiple_of(every) {
            self.fail([throttle(None)]);
        }
        async move {
            {
                let mut in_flight = lock(&self.in_flight);
                in_flight.now += 1;
                in_flight.most = in_flight.most.max(in_flight.now);
            }
            let latency = *lock(&self.latency);
            if !latency.is_zero() {
                time::sleep(latency).await;
            }
            lock(&self.in_flight).now -= 1;
            let failure = lock(&self.failures).pop_front().flatten();
            if failure.is_some() && *lock(&self.admits_by_failing) {
                self.admitted.notify_waiters();
            }
            failure.map_or_else(|| Ok(self.answer(token, sent)), |error| Err(error.into()))
        }
        .boxed()
    }
}

fn node(id: &str, walk: usize, padding: usize) -> InstanceInformation {
    let instance_id = Some(id.to_owned());
    let name = Some(walk.to_string());
    let computer_name = Some("x".repeat(padding));
    InstanceInformation { instance_id, name, computer_name, ..Default::default() }
}

/// Listings in front of the source: the defaults without jitter, changed by `configure`.
fn listings(fake: &Arc<Fake>, configure: impl FnOnce(&mut Config)) -> Listings {
    let mut config = Config { jitter_percent: 0, ..Config::default() };
    configure(&mut config);
    config.build([target(&config, Arc::<Fake>::clone(fake))], &Headed, wall)
}

/// The time that callers know, as it passes by the paused clock.
fn wall() -> SystemTime {
    thread_local!(static START: (Instant, SystemTime) = (Instant::now(), SystemTime::now()));
    START.with(|(start, time)| *time + start.elapsed())
}

/// The one target of the tests.
fn target(config: &Config, source: Arc<dyn Source>) -> Target {
    let identity = Identity { region: "nowhere".to_owned(), scope: Scope::of([]), signed_by: String::new() };
    Target::new(TargetName::default_target(), identity, source, config.ttl, config.max_stale)
}

/// A renderer of one message.
#[derive(Debug)]
struct Headed;

impl Render for Headed {
    fn heads(&self, _: &WholePage<'_>) -> Vec<Head> {
        vec![Head::before_cursor::<Self>(b"head ".to_vec())]
    }
}

/// Both, as they are by default.
fn world(sizes: &[usize]) -> (Arc<Fake>, Listings) {
    let fake = Fake::of_sizes(sizes);
    let listings = listings(&fake, |_| {});
    (fake, listings)
}

fn query() -> Query {
    Query::new(TargetName::default_target(), Filters::Current(Vec::new()))
}

/// A query of its own for each key.
fn query_of(key: &str) -> Query {
    let filter = Filter { key: key.to_owned(), values: vec!["x".to_owned()] };
    Query::new(TargetName::default_target(), Filters::Current(vec![filter]))
}

fn open(listings: &Listings) -> Reader {
    listings.open(&query(), Freshness::default(), None).unwrap()
}

/// A reader that accepts these ages, in seconds.
fn open_for(listings: &Listings, max_age: Option<u64>, max_stale: Option<u64>) -> Reader {
    let of = |seconds: Option<u64>| seconds.map(Duration::from_secs);
    let freshness = Freshness { max_age: of(max_age), max_stale: of(max_stale) };
    listings.open(&query(), freshness, None).unwrap()
}

fn resume(listings: &Listings, cursor: &str) -> Reader {
    listings.open(&query(), Freshness::default(), Some(cursor)).unwrap()
}

/// The text of the cursor and the records of a page.
fn bytes(page: &Page) -> Vec<u8> {
    page.records.iter().fold(page.cursor.to_vec(), |bytes, part| [&bytes, &**part].concat())
}

/// The text of the cursor behind a page.
fn behind(page: &Page) -> String {
    String::from_utf8(page.cursor.to_vec()).unwrap()
}

fn nodes(page: &Page) -> Vec<InstanceInformation> {
    let records = page.records.iter().map(|part| &**part).collect::<Vec<_>>().concat();
    StreamInstanceInformationResponse::decode(&*records).unwrap().instance_information_list
}

fn ids(page: &Page) -> Vec<String> {
    nodes(page).iter().map(|node| node.instance_id().to_owned()).collect()
}

/// The number of the walk that a page's first node came from.
fn walk(page: &Page) -> usize {
    nodes(page)[0].name().parse().unwrap()
}

/// Reads to the end, in pages of this size, or to the first failure.
async fn read_all(reader: &mut Reader, limit: usize) -> Result<Vec<String>, ReadError> {
    let mut all = Vec::new();
    loop {
        all.extend(ids(&reader.read(limit).await?));
        if reader.is_at_end() {
            return Ok(all);
        }
    }
}

fn throttle(retry_after: Option<Duration>) -> UpstreamError {
    let code = Some("ThrottlingException".to_owned());
    UpstreamError::Throttled(AwsError { code, retry_after, ..AwsError::default() })
}

fn invalid_token() -> UpstreamError {
    UpstreamError::InvalidToken(AwsError { code: Some("InvalidNextToken".to_owned()), ..AwsError::default() })
}

fn refusal(code: &str) -> UpstreamError {
    UpstreamError::InvalidRequest(AwsError { code: Some(code.to_owned()), ..AwsError::default() })
}

/// How the first page of a reader came, and whether it is stale.
async fn served(mut reader: Reader) -> (Served, bool) {
    let page = reader.read(1).await.unwrap();
    (page.provenance.served, page.provenance.is_stale)
}
