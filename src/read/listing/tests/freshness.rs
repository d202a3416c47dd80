//! How old an answer may be: rules 4, 5, 6 and 9.

use super::*;

/// A source whose pages somebody else fetched, so long ago.
#[derive(Debug)]
struct Aged(Arc<Fake>, Duration);

impl Source for Aged {
    fn page<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        async move {
            let page = self.0.page(request).await?;
            let sent = Sent { at: page.sent.at - self.1, as_of: page.sent.as_of - self.1 };
            Ok(UpstreamPage { sent, ..page })
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn age_freshness_and_as_of_are_those_of_the_page_and_not_of_the_walk() {
    let fake = Fake::of_sizes(&[5, 5]);
    let config = Config { jitter_percent: 0, ..Config::default() };
    let source = Arc::new(Aged(Arc::clone(&fake), 30 * SECOND));
    let listings = config.build([target(&config, source)], &Headed, wall);
    let before = wall();
    let page = open(&listings).read(5).await.unwrap().provenance;
    assert_eq!((page.age, page.as_of, page.is_stale), (30 * SECOND + LATENCY, before - 30 * SECOND, false));
    assert!(
        open_for(&listings, Some(20), None).read(5).await.unwrap().provenance.is_stale,
        "and says so to whom it is"
    );
    assert_eq!(fake.asked(), 2, "it is no longer fresh for who accepts twenty seconds");
    time::advance(297 * SECOND / 10).await;
    assert_eq!(served(open(&listings)).await, (Served::Hit, false));
    assert_eq!(listings.status()[0].age, Some(598 * SECOND / 10));
    time::advance(2 * LATENCY).await;
    assert_eq!(served(open(&listings)).await.0, Served::Miss, "its TTL began before it was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_somebody_else_fetched_says_nothing_of_what_failed_since() {
    let fake = Fake::of_sizes(&[5]);
    let config = Config { jitter_percent: 0, ..Config::default() };
    let source = Arc::new(Aged(Arc::clone(&fake), 30 * SECOND));
    let listings = config.build([target(&config, source)], &Headed, wall);
    for held in [1, 2, 4] {
        fake.fail([throttle(None)]);
        let failed = open_for(&listings, Some(0), None).read(5).await.unwrap_err();
        assert_eq!(failed.retry_after, Some(held * SECOND));
        time::advance(held * SECOND).await;
        open_for(&listings, Some(0), None).read(5).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_asked_for_that_is_as_young_as_its_readers_need() {
    let (fake, listings) = world(&[5]);
    let mut arrived = Vec::new();
    let mut reading = Vec::new();
    // Two walks advance; the third waits, and is joined meanwhile.
    for max_age in [20, 0, 0, 0] {
        let mut reader = open_for(&listings, Some(max_age), None);
        arrived.push(Instant::now());
        reading.push(tokio::spawn(async move { reader.read(5).await.map(drop) }));
        time::sleep(LATENCY / 8).await;
    }
    for reading in reading {
        reading.await.unwrap().unwrap();
    }
    let not_before: Vec<_> = lock(&fake.requests).iter().filter_map(|(_, not_before)| *not_before).collect();
    assert_eq!(not_before, [arrived[0] - 20 * SECOND, arrived[1], arrived[3]]);
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_shared_until_its_ttl_and_longer_by_who_accepts_that() {
    let (fake, listings) = world(&[5]);
    assert_eq!(served(open(&listings)).await, (Served::Miss, false));
    time::advance(59 * SECOND).await;
    assert_eq!(served(open(&listings)).await, (Served::Hit, false));
    time::advance(SECOND).await;
    assert_eq!(served(open_for(&listings, Some(600), None)).await, (Served::Hit, false));
    assert_eq!(served(open(&listings)).await, (Served::Miss, false));
    time::advance(30 * SECOND).await;
    let page = open_for(&listings, Some(30), None).read(5).await.unwrap();
    assert_eq!((page.provenance.served, page.provenance.is_forced), (Served::Miss, true));
    assert_eq!(fake.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn replicas_do_not_let_listings_expire_in_step() {
    let fake = Fake::of_sizes(&[1]);
    let ttl = async || {
        let listings = listings(&fake, |config| config.jitter_percent = 10);
        open(&listings).read(1).await.unwrap().provenance.max_age
    };
    let one = ttl().await;
    let other = ttl().await;
    assert_ne!(one, other);
    for ttl in [one, other] {
        assert!((54_000..=66_000).contains(&ttl.as_millis()), "{ttl:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_as_old_as_its_own_oldest_fetch() {
    let (_, listings) = world(&[2, 2, 2]);
    let mut reader = open(&listings);
    let first = reader.read(2).await.unwrap().provenance;
    assert_eq!(first.age, LATENCY);
    time::advance(10 * SECOND).await;
    assert_eq!(reader.read(2).await.unwrap().provenance.age, LATENCY, "fetched just now");
    time::advance(10 * SECOND).await;
    let mut other = open(&listings);
    assert_eq!(other.read(3).await.unwrap().provenance.age, 20 * SECOND + 2 * LATENCY);
    assert_eq!(other.read(3).await.unwrap().provenance.age, 10 * SECOND + 2 * LATENCY);
}

#[tokio::test(start_paused = true)]
async fn readers_inside_stay_on_their_walk_to_its_end() {
    let fake = Fake::of_sizes(&[2, 2, 2]);
    let listings = listings(&fake, |config| config.stall_timeout = Duration::MAX);
    let mut inside = open(&listings);
    let page = inside.read(2).await.unwrap();
    let cursor = behind(&page);
    assert_eq!(walk(&page), 1);
    time::advance(100 * SECOND).await;
    assert_eq!(walk(&open(&listings).read(2).await.unwrap()), 2);
    let page = inside.read(2).await.unwrap();
    assert_eq!((walk(&page), page.provenance.is_stale), (1, false), "its second page was fetched just now");
    let page = resume(&listings, &cursor).read(4).await.unwrap();
    assert_eq!((walk(&page), page.provenance.is_stale), (1, false));
    time::advance(70 * SECOND).await;
    let page = resume(&listings, &cursor).read(4).await.unwrap();
    assert_eq!((walk(&page), page.provenance.is_stale), (1, true), "and now it is old, and says so");
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_advances_is_joined_whatever_its_age_by_who_says_no_age() {
    let (fake, listings) = world(&[1; 2000]);
    let mut first = open(&listings);
    let walking = tokio::spawn(async move { read_all(&mut first, 50).await.unwrap().len() });
    time::sleep(100 * SECOND).await;
    let page = open(&listings).read(1).await.unwrap();
    assert_eq!((walk(&page), page.provenance.is_stale), (1, true));
    let page = open_for(&listings, Some(60), None).read(1).await.unwrap();
    assert_eq!((walk(&page), page.provenance.is_stale), (2, false));
    assert_eq!(walking.await.unwrap(), 2000);
    assert_eq!(fake.asked(), 2001);
}

#[tokio::test(start_paused = true)]
async fn who_asks_now_never_joins_a_fetch_sent_before_and_all_such_readers_share_the_next() {
    let (fake, listings) = world(&[5]);
    let spawn = |mut reader: Reader| tokio::spawn(async move { walk(&reader.read(5).await.unwrap()) });
    let first = spawn(open(&listings));
    time::sleep(LATENCY / 4).await;
    let now: Vec<_> = (0..3).map(|_| spawn(open_for(&listings, Some(0), None))).collect();
    time::sleep(LATENCY / 4).await;
    // Two walks advance: these wait for one of them to end, and share the next.
    let later: Vec<_> = (0..3).map(|_| spawn(open_for(&listings, Some(0), None))).collect();
    time::sleep(LATENCY / 8).await;
    let with_them = spawn(open_for(&listings, Some(0), None));
    assert_eq!(fake.asked(), 2);
    assert_eq!(first.await.unwrap(), 1);
    for reader in now {
        assert_eq!(reader.await.unwrap(), 2);
    }
    for reader in later.into_iter().chain([with_them]) {
        assert_eq!(reader.await.unwrap(), 3);
    }
    assert_eq!((fake.asked(), lock(&fake.in_flight).most), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn who_asks_now_gets_the_answer_of_now() {
    let (fake, listings) = world(&[5]);
    for asked in 1..=3 {
        let page = open_for(&listings, Some(0), Some(600)).read(5).await.unwrap().provenance;
        assert_eq!((page.served, page.is_stale, fake.asked()), (Served::Miss, false, asked));
    }
}

#[tokio::test(start_paused = true)]
async fn stale_data_is_given_at_once_while_one_walk_replaces_it() {
    let (fake, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    time::advance(70 * SECOND).await;
    for _ in 0..10 {
        assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Hit, true));
    }
    time::sleep(SECOND).await;
    assert_eq!(fake.asked(), 2);
    let page = open(&listings).read(5).await.unwrap();
    assert_eq!((walk(&page), page.provenance.served, page.provenance.is_stale), (2, Served::Hit, false));
    assert_eq!([Outcome::Stale, Outcome::Hit].map(|outcome| listings.readers().of(outcome)), [10, 1]);
}

#[tokio::test(start_paused = true)]
async fn stale_data_is_bounded_and_never_counts_as_fresh_again() {
    let (_, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    time::advance(90 * SECOND).await;
    assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Miss, false), "too old");
    time::advance(70 * SECOND).await;
    assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Hit, true));
    assert_eq!(served(open_for(&listings, None, Some(0))).await, (Served::Coalesced, false), "not for who wants fresh");
}

#[tokio::test(start_paused = true)]
async fn the_configuration_says_how_stale_for_who_does_not() {
    let fake = Fake::of_sizes(&[5]);
    let listings = listings(&fake, |config| config.max_stale = 30 * SECOND);
    open(&listings).read(5).await.unwrap();
    time::advance(70 * SECOND).await;
    assert_eq!(served(open(&listings)).await, (Served::Hit, true));
    time::sleep(SECOND).await;
    assert_eq!(served(open_for(&listings, Some(0), None)).await, (Served::Miss, false));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_walks_as_far_as_the_old_listing_was_read_and_no_further() {
    let (fake, listings) = world(&[2; 10]);
    open(&listings).read(5).await.unwrap();
    assert_eq!(fake.asked(), 3);
    time::advance(70 * SECOND).await;
    assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Hit, true));
    time::sleep(10 * SECOND).await;
    assert_eq!((fake.asked(), listings.walks()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_nobody_is_at_is_no_refresh() {
    let (fake, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    time::advance(70 * SECOND).await;
    assert!(open_for(&listings, Some(0), None).read(5).now_or_never().is_none(), "gone before its fetch was sent");
    time::sleep(SECOND).await;
    assert_eq!((fake.asked(), listings.walks()), (1, 0));
    assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Hit, true));
    time::sleep(SECOND).await;
    assert_eq!(fake.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn walks_that_nobody_can_join_stand_in_nobodys_way() {
    let fake = Fake::of_sizes(&[5; 100]);
    let listings = listings(&fake, |config| (config.max_listing_bytes, config.read_ahead) = (Some(1), 100));
    let mut inside = [open(&listings).streaming(), open(&listings).streaming()];
    for reader in &mut inside {
        reader.read(5).await.unwrap();
    }
    assert_eq!(listings.walks(), 2);
    let started = Instant::now();
    open(&listings).read(5).await.unwrap();
    assert_eq!(started.elapsed(), LATENCY);
}

#[tokio::test(start_paused = true)]
async fn what_a_refresh_fetched_and_nobody_read_is_refreshed_too() {
    let (fake, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    for asked in 2..=4 {
        time::advance(70 * SECOND).await;
        assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Hit, true));
        time::sleep(SECOND).await;
        assert_eq!(fake.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_kept_for_five_seconds() {
    let (fake, listings) = world(&[0]);
    let empty = async |mut reader: Reader| ids(&reader.read(5).await.unwrap()).is_empty() && reader.is_at_end();
    assert!(empty(open(&listings)).await);
    time::advance(Duration::from_millis(4899)).await;
    assert!(empty(open(&listings)).await);
    let empty_page = open(&listings).read(5).await.unwrap().provenance;
    assert_eq!((empty_page.age, empty_page.max_age), (Duration::from_millis(4999), 5 * SECOND));
    assert_eq!(fake.asked(), 1);
    time::advance(Duration::from_millis(1)).await;
    assert!(empty(open_for(&listings, Some(600), Some(600))).await);
    assert_eq!(fake.asked(), 2);
}
