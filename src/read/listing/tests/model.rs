//! Random readers, cursors, expiries, failures and evictions against a simple model of the rules. Upstream answers at
//! once here, so that one thing happens after the other; what happens at the same time has tests of its own.

use proptest::{prelude::*, sample::Index as Sample};

use super::*;
use crate::read::{ListingError, Provenance};

const TTL: u64 = 60;
const SIZES: [usize; 3] = [3, 3, 2];
const TOTAL: usize = 8;

#[derive(Debug, Clone)]
enum Event {
    /// A reader at the start of one of two queries, who reads one page.
    Open {
        query: usize,
        max_age: Option<u64>,
        max_stale: Option<u64>,
        limit: usize,
    },
    /// A reader at one of the cursors handed out so far.
    Resume {
        cursor: Sample,
        limit: usize,
    },
    Pass {
        seconds: u64,
    },
    /// From now on upstream answers so.
    Upstream(Mood),
    EvictAll,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Throttling { advice: Option<u64> },
    Down,
    Refusing,
}

/// What a reader must see: the records from here to there, as this walk gave them.
#[derive(Debug, PartialEq)]
struct Seen {
    walk: usize,
    from: usize,
    to: usize,
    is_stale: bool,
    is_hit: bool,
}

/// Or else the mood of upstream that fails it; and where it may go on.
type Outcome = Result<(Seen, Place), Mood>;

/// What the rules say.
#[derive(Debug)]
struct Model {
    now: u64,
    mood: Mood,
    asked: usize,
    walks: usize,
    listings: Vec<Listing>,
    /// Those that readers at the start of a query may join, newest first, by their index.
    starts: [Vec<usize>; 2],
    held: [Held; 2],
    throttled: Held,
}

#[derive(Debug)]
struct Listing {
    query: usize,
    walk: usize,
    /// The page that it begins with.
    first: usize,
    /// When each page was asked for.
    pages: Vec<u64>,
    read: usize,
    is_gone: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    delay: u64,
    until: u64,
    by: Option<Mood>,
}

/// Where a cursor leads, as the model knows it.
#[derive(Debug, Clone, Copy)]
struct Place {
    listing: usize,
    record: usize,
}

/// The page that a record is in, or begins.
fn page_of(record: usize) -> usize {
    [0, 3, 6].iter().rposition(|&first| first <= record).unwrap()
}

impl Model {
    fn new() -> Self {
        Self {
            now: 0,
            mood: Mood::Well,
            asked: 0,
            walks: 0,
            listings: Vec::new(),
            starts: [Vec::new(), Vec::new()],
            held: [Held::default(); 2],
            throttled: Held::default(),
        }
    }

    fn hold(&self, query: usize) -> Option<Mood> {
        [self.throttled, self.held[query]].into_iter().find(|held| self.now < held.until).and_then(|held| held.by)
    }

    /// None where its first page was not fetched yet: what was sent and failed does not count.
    fn age(&self, listing: usize) -> Option<u64> {
        self.listings[listing].pages.first().map(|sent| self.now - sent)
    }

    fn is_complete(&self, listing: usize) -> bool {
        self.listings[listing].pages.len() == SIZES.len()
    }

    /// Asks upstream for the listing's next page.
    fn fetch(&mut self, listing: usize) -> Result<(), Mood> {
        let query = self.listings[listing].query;
        if let Some(by) = self.hold(query) {
            return Err(by);
        }
        self.asked += 1;
        let now = self.now;
        if self.mood == Mood::Well {
            for held in [&mut self.throttled, &mut self.held[query]] {
                *held = Held::default();
            }
            let listing = &mut self.listings[listing];
            if listing.first == 0 && listing.pages.is_empty() {
                self.walks += 1;
                listing.walk = self.walks;
            }
            listing.pages.push(now);
            return Ok(());
        }
        if self.mood == Mood::Refusing && self.listings[listing].first > 0 {
            // It says nothing of the query: the token may be made up.
            self.listings[listing].is_gone = true;
            return Err(self.mood);
        }
        let held =
            if matches!(self.mood, Mood::Throttling { .. }) { &mut self.throttled } else { &mut self.held[query] };
        let seconds = match self.mood {
            Mood::Throttling { advice: Some(advice) } => advice,
            Mood::Refusing => 5,
            _ => {
                held.delay = (held.delay * 2).clamp(1, 30);
                held.delay
            }
        };
        (held.until, held.by) = (now + seconds, Some(self.mood));
        Err(self.mood)
    }

    fn add(&mut self, query: usize, walk: usize, first: usize) -> usize {
        let pages = Vec::new();
        let read = 0;
        self.listings.push(Listing { query, walk, first, pages, read, is_gone: false });
        self.listings.len() - 1
    }

    /// Failed or not.
    fn joinable(&self, query: usize) -> impl Iterator<Item = usize> {
        self.starts[query].iter().copied().filter(|&listing| !self.listings[listing].is_gone)
    }

    /// What has an answer younger than this: the newest, or the newest that is complete where nothing can be added.
    fn usable(&self, query: usize, bound: u64, is_held: bool, failed: Option<usize>) -> Option<usize> {
        let is_usable = |&listing: &usize| self.age(listing).is_some_and(|age| age < bound) && failed != Some(listing);
        let complete = self.joinable(query).filter(is_usable).find(|&listing| self.is_complete(listing));
        complete.filter(|_| is_held).or_else(|| self.joinable(query).find(is_usable))
    }

    fn start(&mut self, query: usize) -> usize {
        let answer = self.joinable(query).find(|&listing| self.age(listing).is_some());
        let complete = self.joinable(query).find(|&listing| self.is_complete(listing)).filter(|&it| answer != Some(it));
        let listing = self.add(query, 0, 0);
        self.starts[query] = [listing].into_iter().chain(answer).chain(complete).collect();
        listing
    }

    /// A page of `limit` records from `record` on. `bound` is the age from which the reader calls it stale.
    fn read(&mut self, listing: usize, record: usize, limit: usize, bound: u64) -> Outcome {
        let mut oldest = None;
        let mut is_hit = true;
        let to = (record + limit).min(TOTAL);
        let last = page_of(to.saturating_sub(1).max(record));
        for page in page_of(record)..=last {
            let index = page - self.listings[listing].first;
            while self.listings[listing].pages.len() <= index {
                is_hit = false;
                self.fetch(listing)?;
            }
            let read = &mut self.listings[listing];
            read.read = read.read.max(index + 1);
            oldest = oldest.or(Some(read.pages[index]));
        }
        let sent = oldest.unwrap();
        let is_stale = sent < self.now && self.now - sent >= bound;
        let seen = Seen { walk: self.listings[listing].walk, from: record, to, is_stale, is_hit };
        Ok((seen, Place { listing, record: to }))
    }

    /// A reader at the start, or one who goes on in the first page of a listing that is gone.
    fn open(&mut self, query: usize, max_age: Option<u64>, max_stale: u64, record: usize, limit: usize) -> Outcome {
        let fresh = max_age.unwrap_or(TTL);
        let held = self.hold(query);
        let bound = fresh + max_stale;
        let joined = self.joinable(query).find(|&listing| self.age(listing).is_some_and(|age| age < fresh));
        let joined = joined.or_else(|| self.joinable(query).find(|&listing| self.age(listing).is_none()));
        let stale = self.usable(query, bound, held.is_some(), None).filter(|_| max_age != Some(0));
        let is_complete = stale.is_some_and(|stale| self.is_complete(stale));
        let has_answer = joined.is_some_and(|joined| self.age(joined).is_some());
        let chosen = match (joined, stale) {
            (_, Some(complete)) if held.is_some() && is_complete => Some(complete),
            (Some(joined), _) if has_answer => Some(joined),
            (_, Some(stale)) => {
                if held.is_none() {
                    let refresh = self.start(query);
                    let _failed = (0..self.listings[stale].read.max(1)).try_for_each(|_| self.fetch(refresh));
                }
                Some(stale)
            }
            (joined, None) => joined,
        };
        let listing = match (chosen, held) {
            (None, Some(by)) => Err(by),
            (chosen, _) => Ok(chosen.unwrap_or_else(|| self.start(query))),
        };
        let outcome = listing.and_then(|listing| self.read(listing, record, limit, fresh));
        if let Err(by) = outcome
            && by != Mood::Refusing
            && record == 0
            && let Some(other) = self.usable(query, bound, true, listing.ok())
        {
            return self.read(other, record, limit, fresh);
        }
        outcome
    }

    fn resume(&mut self, place: Place, limit: usize) -> Outcome {
        let Place { mut listing, record } = place;
        let Listing { query, walk, is_gone, .. } = self.listings[listing];
        let page = page_of(record);
        if is_gone && page == 0 {
            return self.open(query, None, 0, record, limit);
        }
        if is_gone {
            let is_tail =
                |other: &Listing| !other.is_gone && (other.query, other.walk, other.first) == (query, walk, page);
            let tail = self.listings.iter().position(is_tail);
            listing = tail.unwrap_or_else(|| self.add(query, walk, page));
        }
        self.read(listing, record, limit, TTL)
    }

    fn evict_all(&mut self) {
        for listing in &mut self.listings {
            listing.is_gone = true;
        }
        // What was held off was known through the listings; throttling is the target's.
        self.held = [Held::default(); 2];
    }
}

fn failures(mood: Mood) -> Vec<UpstreamError> {
    let failure = || match mood {
        Mood::Well => None,
        Mood::Throttling { advice } => Some(throttle(advice.map(Duration::from_secs))),
        Mood::Down => Some(UpstreamError::Unavailable(None, None)),
        Mood::Refusing => Some(refusal("InvalidFilterKey")),
    };
    std::iter::repeat_with(failure).take(20).flatten().collect()
}

fn same_kind(error: &ListingError, mood: Mood) -> bool {
    let ListingError::Upstream(error) = error else { return false };
    match mood {
        Mood::Well => false,
        Mood::Throttling { .. } => matches!(error, UpstreamError::Throttled(_)),
        Mood::Down => matches!(error, UpstreamError::Unavailable(..)),
        Mood::Refusing => matches!(error, UpstreamError::InvalidRequest(_)),
    }
}

/// Plays the events to both, and compares what they say.
async fn play(events: Vec<Event>) {
    let fake = Fake::of_sizes(&SIZES);
    *lock(&fake.latency) = Duration::ZERO;
    // What holds off a whole target but throttling has tests of its own.
    let listings = listings(&fake, |config| config.breaker_failures = u32::MAX);
    let mut model = Model::new();
    let mut cursors: Vec<(usize, String, Place)> = Vec::new();
    for event in events {
        lock(&fake.failures).clear();
        fake.fail(failures(model.mood));
        let (query, mut reader, expected, limit) = match event {
            Event::Pass { seconds } => {
                time::advance(Duration::from_secs(seconds)).await;
                model.now += seconds;
                continue;
            }
            Event::Upstream(mood) => {
                model.mood = mood;
                continue;
            }
            Event::EvictAll => {
                listings.evict_all();
                model.evict_all();
                continue;
            }
            Event::Open { query, max_age, max_stale, limit } => {
                let of = |seconds: Option<u64>| seconds.map(Duration::from_secs);
                let freshness = Freshness { max_age: of(max_age), max_stale: of(max_stale) };
                let reader = listings.open(&queries()[query], freshness, None).unwrap();
                (query, reader, model.open(query, max_age, max_stale.unwrap_or(0), 0, limit), limit)
            }
            Event::Resume { .. } if cursors.is_empty() => continue,
            Event::Resume { cursor, limit } => {
                let (query, text, place) = cursor.get(&cursors);
                let reader = listings.open(&queries()[*query], Freshness::default(), Some(text)).unwrap();
                (*query, reader, model.resume(*place, limit), limit)
            }
        };
        let page = reader.read(limit).await;
        match (&page, &expected) {
            (Ok(page), Ok((expected, place))) => {
                assert_eq!(seen(page), *expected, "{model:#?}");
                if !reader.is_at_end() {
                    cursors.push((query, behind(page), *place));
                }
            }
            (Err(failed), Err(mood)) => assert!(same_kind(&failed.error, *mood), "{failed:?} is not {mood:?}"),
            _ => panic!("{page:?} is not {expected:?}: {model:#?}"),
        }
        drop(reader);
        while listings.walks() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fake.asked(), model.asked, "{model:#?}");
    }
}

fn queries() -> [Query; 2] {
    [query(), query_of("IamRole")]
}

fn seen(page: &Page) -> Seen {
    let number = |id: &String| id.strip_prefix("i-").unwrap().parse::<usize>().unwrap();
    let numbers: Vec<_> = ids(page).iter().map(number).collect();
    let from = numbers[0];
    let to = numbers[numbers.len() - 1] + 1;
    assert_eq!(numbers, (from..to).collect::<Vec<_>>());
    let walk = walk(page);
    assert!(nodes(page).iter().all(|node| *node.name() == walk.to_string()), "of one walk");
    let Provenance { is_stale, served, .. } = page.provenance;
    Seen { walk, from, to, is_stale, is_hit: served == Served::Hit }
}

fn any_event() -> impl Strategy<Value = Event> {
    let age = || prop::option::of(prop_oneof![Just(0u64), Just(5), Just(60), Just(600)]);
    let mood = prop_oneof![
        3 => Just(Mood::Well),
        1 => prop::option::of(1u64..20).prop_map(|advice| Mood::Throttling { advice }),
        1 => Just(Mood::Down),
        1 => Just(Mood::Refusing),
    ];
    prop_oneof![
        4 => (0usize..2, age(), age(), 1usize..4)
            .prop_map(|(query, max_age, max_stale, limit)| Event::Open { query, max_age, max_stale, limit }),
        4 => (any::<Sample>(), 1usize..6).prop_map(|(cursor, limit)| Event::Resume { cursor, limit }),
        3 => prop_oneof![1u64..4, 1u64..100].prop_map(|seconds| Event::Pass { seconds }),
        2 => mood.prop_map(Event::Upstream),
        1 => Just(Event::EvictAll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_readers_see_what_the_rules_say(events in prop::collection::vec(any_event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(events));
    }
}
