//! What happens when upstream fails: rules 2, 7 and 9.

use futures_util::future::join_all;

use super::*;
use crate::read::{ListingError, ListingState, TargetState};

/// Fails, and returns what remains of the hold-off in milliseconds.
async fn failed(mut reader: Reader) -> (ReadError, Option<u128>) {
    let error = reader.read(5).await.unwrap_err();
    let retry_after = error.retry_after.map(|delay| delay.as_millis());
    (error, retry_after)
}

#[tokio::test(start_paused = true)]
async fn waiters_share_the_failure_and_who_comes_next_gets_it_at_once() {
    let (fake, listings) = world(&[5]);
    fake.fail([throttle(None)]);
    let waiting = join_all((0..100).map(|_| failed(open(&listings)))).await;
    assert!(waiting.iter().all(|(_, retry_after)| *retry_after == Some(1000)));
    assert!(waiting.iter().all(|(error, _)| Arc::ptr_eq(&error.error, &waiting[0].0.error)));
    time::advance(SECOND / 4).await;
    let started = Instant::now();
    assert_eq!(failed(open(&listings)).await.1, Some(750));
    assert_eq!(failed(open_for(&listings, Some(0), None)).await.1, Some(750), "even for who asks now");
    assert_eq!((started.elapsed(), fake.asked()), (Duration::ZERO, 1));
    let readers = listings.readers();
    assert_eq!(readers.of(Outcome::Refused) + readers.of(Outcome::Failed), 102);
    time::advance(SECOND).await;
    assert_eq!(served(open(&listings)).await, (Served::Miss, false));
}

#[tokio::test(start_paused = true)]
async fn upstream_is_asked_no_sooner_than_advice_and_hold_off_allow() {
    let (fake, listings) = world(&[5]);
    fake.fail([throttle(None), throttle(Some(3 * SECOND)), throttle(None), throttle(None)]);
    let started = Instant::now();
    while served_or_failed(&listings).await {
        time::advance(SECOND / 100).await;
    }
    let asked: Vec<_> = lock(&fake.asked).iter().map(|(_, at)| (*at - started).as_secs()).collect();
    // 1 s; the advice; 2 s; 4 s; each after the tenth of a second that a failure takes.
    assert_eq!(asked, [0, 1, 4, 6, 10]);
}

async fn served_or_failed(listings: &Listings) -> bool {
    open(listings).read(5).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn after_a_success_a_failure_is_the_first_again() {
    let failures: [fn() -> UpstreamError; 2] = [|| throttle(None), || UpstreamError::Unavailable(None, None)];
    for failure in failures {
        let (fake, listings) = world(&[5]);
        for _ in 0..3 {
            fake.fail([failure()]);
            assert_eq!(failed(open_for(&listings, Some(0), None)).await.1, Some(1000));
            time::advance(SECOND).await;
            served(open_for(&listings, Some(0), None)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_holds_for_all_queries_and_any_other_failure_for_its_own() {
    let (fake, listings) = world(&[5]);
    let other = || listings.open(&query_of("IamRole"), Freshness::default(), None).unwrap();
    fake.fail([throttle(None)]);
    failed(open(&listings)).await;
    failed(other()).await;
    assert_eq!(fake.asked(), 1);
    time::advance(SECOND).await;
    fake.fail([UpstreamError::Unavailable(None, None)]);
    failed(open(&listings)).await;
    assert_eq!(served(other()).await, (Served::Miss, false));
    assert_eq!(failed(open(&listings)).await.1, Some(900));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_begun_rides_throttling_out() {
    let (fake, listings) = world(&[5; 4]);
    let mut stream = open(&listings).streaming();
    let mut unary = open(&listings);
    fake.fail([throttle(None)]);
    assert!(open(&listings).streaming().read(5).await.is_err(), "but not before");
    time::advance(SECOND).await;
    stream.read(5).await.unwrap();
    // Two pages are read ahead.
    time::sleep(SECOND).await;
    unary.read(15).await.unwrap();
    fake.fail((0..4).map(|_| throttle(None)));
    let started = Instant::now();
    assert!(unary.read(5).await.is_err() && started.elapsed() == LATENCY, "a unary call fails fast");
    assert_eq!(ids(&stream.read(15).await.unwrap())[0], "i-5");
    assert_eq!(started.elapsed().as_secs(), 1 + 2 + 4 + 8);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_reads_nothing_ahead_rides_throttling_out_too() {
    let fake = Fake::of_sizes(&[5; 4]);
    let listings = listings(&fake, |config| config.read_ahead = 0);
    let mut stream = open(&listings).streaming();
    fake.fail([throttle(None)]);
    assert!(stream.read(5).await.is_err(), "not before it has begun");
    assert!(stream.read(5).await.is_err(), "however often it fails before that");
    time::advance(SECOND).await;
    stream.read(5).await.unwrap();
    fake.fail([throttle(None)]);
    assert_eq!(ids(&stream.read(5).await.unwrap())[0], "i-5");
    assert_eq!(fake.asked(), 4, "and nothing was read ahead");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_large_messages_rides_throttling_out_of_a_window_too() {
    let fake = Fake::of_sizes(&[5; 12]);
    let listings = listings(&fake, |config| config.max_listing_bytes = Some(1));
    let mut stream = open(&listings).streaming();
    stream.read(20).await.unwrap();
    time::sleep(SECOND).await;
    fake.fail([throttle(None)]);
    assert_eq!(ids(&stream.read(20).await.unwrap()), (20..40).map(|id| format!("i-{id}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_walk_in_line_is_told_at_once_when_its_target_is_held_off() {
    let (fake, listings) = world(&[5]);
    *lock(&fake.is_jammed) = true;
    let mut waiting = open(&listings);
    let waiting = tokio::spawn(async move { waiting.read(5).await.unwrap_err().error.is_throttle() });
    time::sleep(SECOND).await;
    *lock(&fake.is_jammed) = false;
    fake.fail([throttle(None)]);
    failed(listings.open(&query_of("IamRole"), Freshness::default(), None).unwrap()).await;
    assert!(time::timeout(LATENCY, waiting).await.unwrap().unwrap());
    assert_eq!(fake.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_is_admitted_just_as_its_target_is_held_off_asks_nothing_and_prolongs_nothing() {
    let (fake, listings) = world(&[5]);
    *lock(&fake.is_jammed) = true;
    let mut queued = open(&listings);
    let queued = tokio::spawn(async move { queued.read(5).await.unwrap_err().retry_after });
    time::sleep(SECOND).await;
    (*lock(&fake.is_jammed), *lock(&fake.admits_by_failing)) = (false, true);
    fake.fail([throttle(None)]);
    let other = listings.open(&query_of("IamRole"), Freshness::default(), None).unwrap();
    assert_eq!(failed(other).await.1, Some(1000));
    assert_eq!((queued.await.unwrap(), fake.asked()), (Some(SECOND), 1));
    time::advance(SECOND).await;
    assert_eq!(served(open(&listings)).await, (Served::Miss, false));
    fake.fail([throttle(None)]);
    assert_eq!(failed(open_for(&listings, Some(0), None)).await.1, Some(1000), "the success ended it");
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_no_longer_for_a_page_than_its_patience() {
    for (advice, waited) in [(None, 1 + 2 + 4 + 8 + 16), (Some(40 * SECOND), 40), (Some(61 * SECOND), 0)] {
        let (fake, listings) = world(&[5; 4]);
        let mut stream = open(&listings).streaming();
        stream.read(5).await.unwrap();
        time::sleep(SECOND).await;
        fake.fail((0..100).map(|_| throttle(advice)));
        let started = Instant::now();
        assert!(stream.read(15).await.unwrap_err().error.is_throttle());
        assert_eq!(started.elapsed().as_secs(), waited, "{advice:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_again_and_again_is_left_alone_for_all_queries_and_probed() {
    let (fake, listings) = world(&[5]);
    let query = |key: usize| listings.open(&query_of(&key.to_string()), Freshness::default(), None).unwrap();
    fake.fail((0..6).map(|_| UpstreamError::Unavailable(None, None)));
    for key in 0..5 {
        assert_eq!(failed(query(key)).await.1, Some(1000));
    }
    let (error, retry_after) = failed(query(5)).await;
    assert!(
        matches!(*error.error, ListingError::BreakerOpen(None)) && retry_after == Some(1000),
        "the breaker is open"
    );
    assert_eq!(fake.asked(), 5);
    let state = || listings.targets().next().unwrap().state();
    assert_eq!(state(), TargetState::BreakerOpen);
    time::advance(SECOND).await;
    // However slow it has become.
    *lock(&fake.latency) = 5 * SECOND;
    let probes = join_all((0..10).map(|key| failed(query(10 + key)))).await;
    assert_eq!(fake.asked(), 6, "one finds out for all");
    assert!(probes.iter().all(|(_, retry_after)| retry_after.is_some()));
    time::advance(2 * SECOND).await;
    let mut probe = query(29);
    let probing = tokio::spawn(async move { probe.read(5).await.is_ok() });
    time::sleep(3 * SECOND).await;
    assert!(query(30).read(5).await.is_err());
    assert!(probing.await.unwrap());
    assert_eq!(fake.asked(), 7, "nobody else was let in");
    assert_eq!(served(query(31)).await, (Served::Miss, false), "it is closed");
    assert_eq!(state(), TargetState::Ready);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_waits_as_long_as_aws_advises() {
    let (fake, listings) = world(&[5]);
    let aws = AwsError { retry_after: Some(40 * SECOND), ..AwsError::default() };
    fake.fail([(); 5].map(|()| UpstreamError::Unavailable(Some(aws.clone()), None)));
    let query = |key: usize| listings.open(&query_of(&key.to_string()), Freshness::default(), None).unwrap();
    for key in 0..5 {
        failed(query(key)).await;
    }
    let (error, retry_after) = failed(query(5)).await;
    assert!(matches!(*error.error, ListingError::BreakerOpen(_)));
    assert_eq!(retry_after, Some(40_000), "other queries, too");
}

#[tokio::test(start_paused = true)]
async fn a_walk_pauses_while_its_target_is_held_off_and_goes_on_after() {
    let (fake, listings) = world(&[5; 10]);
    let mut reader = open(&listings).streaming();
    reader.read(5).await.unwrap();
    // While its second fetch is under way.
    *lock(&fake.latency) = LATENCY / 2;
    fake.fail([throttle(Some(7 * SECOND))]);
    failed(listings.open(&query_of("IamRole"), Freshness::default(), None).unwrap()).await;
    assert_eq!((fake.asked(), listings.walks()), (3, 1));
    let cursor = behind(&reader.read(5).await.unwrap());
    assert!(failed(resume(&listings, &cursor)).await.0.error.is_throttle());
    time::sleep(5 * SECOND).await;
    assert_eq!((fake.asked(), listings.walks()), (3, 0));
    time::sleep(2 * SECOND).await;
    assert_eq!(read_all(&mut open(&listings), 50).await.unwrap().len(), 50);
    assert_eq!(lock(&fake.walks).to_owned(), 1, "it was not closed by that");
}

#[tokio::test(start_paused = true)]
async fn stale_data_takes_the_place_of_an_error_where_it_is_allowed() {
    let (fake, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    time::advance(70 * SECOND).await;
    fake.fail([throttle(None)]);
    failed(open_for(&listings, None, Some(0))).await;
    assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Hit, true));
    assert_eq!(served(open_for(&listings, Some(0), Some(90))).await, (Served::Hit, true), "even for who asks now");
    time::sleep(SECOND / 2).await;
    assert_eq!(fake.asked(), 2, "no refresh while it is held off");
    fake.fail([throttle(None)]);
    time::sleep(SECOND / 2).await;
    let mut now = open_for(&listings, Some(0), Some(90));
    let page = now.read(5).await.unwrap();
    assert_eq!((fake.asked(), walk(&page), page.provenance.is_stale), (3, 1, true), "asked, failed, and fell back");
    failed(open_for(&listings, None, Some(5))).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_once_and_kept_for_five_seconds() {
    let (fake, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    time::advance(70 * SECOND).await;
    fake.fail([refusal("InvalidFilterKey")]);
    for _ in 0..1000 {
        let (error, retry_after) = failed(open_for(&listings, Some(0), Some(600))).await;
        assert!(matches!(&*error.error, ListingError::Upstream(UpstreamError::InvalidRequest(_))));
        assert_eq!(retry_after, None, "waiting does not help, and neither does stale data");
    }
    assert_eq!(fake.asked(), 2);
    time::advance(5 * SECOND).await;
    assert_eq!(served(open(&listings)).await, (Served::Miss, false));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_met_where_the_page_is_missing_and_the_walk_goes_on_from_there_after_the_hold_off() {
    let (fake, listings) = world(&[2, 2, 2]);
    let mut reader = open(&listings);
    let cursor = behind(&reader.read(4).await.unwrap());
    fake.fail([UpstreamError::Unavailable(None, None)]);
    assert!(reader.read(2).await.is_err());
    assert!(resume(&listings, &cursor).read(2).await.is_err());
    for (max_age, max_stale) in [(None, None), (Some(60), None), (None, Some(600))] {
        let mut other = open_for(&listings, max_age, max_stale);
        let page = other.read(2).await.unwrap();
        assert_eq!((page.provenance.served, page.provenance.is_stale), (Served::Hit, false), "it is there, and fresh");
        other.read(2).await.unwrap();
        assert!(other.read(2).await.is_err());
    }
    let (error, retry_after) = failed(open_for(&listings, None, Some(600))).await;
    assert!(matches!(&*error.error, ListingError::Upstream(UpstreamError::Unavailable(..))), "a page needs it, too");
    assert_eq!(retry_after, Some(1000));
    assert!(open_for(&listings, Some(0), None).read(2).await.is_err(), "who asks now fails at once");
    assert_eq!((listings.status()[0].state, fake.asked()), (ListingState::Open, 3));
    time::advance(SECOND).await;
    let page = reader.read(2).await.unwrap();
    assert_eq!((walk(&page), ids(&page)), (1, vec!["i-4".to_owned(), "i-5".to_owned()]));
    assert_eq!(ids(&resume(&listings, &cursor).read(2).await.unwrap()), ids(&page));
    assert_eq!(read_all(&mut open(&listings), 5).await.unwrap().len(), 6, "it is complete, and joined like any other");
    assert_eq!((listings.status().len(), listings.status()[0].state), (1, ListingState::Complete));
    assert_eq!(fake.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_first_fetch_that_failed_makes_nothing_old() {
    let (fake, listings) = world(&[2]);
    fake.fail([throttle(None)]);
    failed(open(&listings)).await;
    time::advance(70 * SECOND).await;
    let page = open_for(&listings, Some(0), None).read(2).await.unwrap().provenance;
    assert_eq!((page.served, page.is_stale, page.age, page.is_forced), (Served::Miss, false, LATENCY, false));
    assert_eq!((listings.status().len(), fake.asked()), (1, 2), "the walk that failed was taken up");
    assert_eq!(served(open(&listings)).await, (Served::Hit, false));
    fake.fail([throttle(None)]);
    failed(open_for(&listings, Some(0), None)).await;
    time::advance(SECOND).await;
    assert_eq!(served(open(&listings)).await, (Served::Hit, false), "what is fresh is not asked for again");
    assert!(open_for(&listings, Some(0), None).read(2).await.unwrap().provenance.is_forced);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_token_is_an_error_and_never_a_silent_end() {
    let (fake, listings) = world(&[1, 1, 1, 1]);
    *lock(&fake.repeats_tokens) = true;
    let mut reader = open(&listings);
    let cursor = behind(&reader.read(1).await.unwrap());
    for mut reader in [reader, resume(&super::listings(&fake, |_| {}), &cursor)] {
        for _ in 0..2 {
            let error = reader.read(1).await.unwrap_err();
            assert!(matches!(*error.error, ListingError::RepeatedToken), "for good");
        }
    }
    assert_eq!(fake.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_walk_is_bounded_even_over_cursors_and_processes() {
    let fake = Fake::of_sizes(&[1, 1, 1]);
    let listings = || listings(&fake, |config| config.page_cap = 2);
    let mut reader = open(&listings());
    let cursor = behind(&reader.read(2).await.unwrap());
    let error = reader.read(1).await.unwrap_err();
    assert!(matches!(*error.error, ListingError::PageCap(2)));
    let error = resume(&listings(), &cursor).read(1).await.unwrap_err();
    assert!(matches!(*error.error, ListingError::PageCap(2)));
    assert_eq!(fake.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_aws_no_longer_takes_expires_the_listing_and_is_asked_again_each_time() {
    let (fake, listings) = world(&[1, 1]);
    let mut reader = open(&listings);
    let cursor = behind(&reader.read(1).await.unwrap());
    fake.fail([invalid_token(), invalid_token()]);
    for _ in 0..2 {
        let error = resume(&listings, &cursor).read(1).await.unwrap_err();
        assert!(matches!(*error.error, ListingError::Expired(_)));
        assert_eq!(error.retry_after, None);
    }
    assert!(matches!(*reader.read(1).await.unwrap_err().error, ListingError::Expired(_)), "for good");
    assert_eq!(fake.asked(), 3);
    assert_eq!(ids(&resume(&listings, &cursor).read(1).await.unwrap()), ["i-1"], "it is taken again");
    assert_eq!(walk(&open(&listings).read(1).await.unwrap()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_before_upstream_is_asked_again_even_without_a_hold_off() {
    let fake = Fake::of_sizes(&[5]);
    let listings = listings(&fake, |config| (config.hold_off, config.max_hold_off) = (Duration::ZERO, Duration::ZERO));
    fake.fail([UpstreamError::Unavailable(None, None)]);
    failed(open(&listings)).await;
    time::sleep(SECOND).await;
    assert_eq!(fake.asked(), 1);
    assert_eq!(served(open(&listings)).await, (Served::Miss, false));
}

#[derive(Debug)]
struct Panics;

impl Source for Panics {
    fn page<'a>(&'a self, _: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        async { panic!("on purpose") }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_when_a_walk_panics() {
    let listings = Config::default().build([target(&Config::default(), Arc::new(Panics))], &Headed, wall);
    let error = open(&listings).read(1).await.unwrap_err();
    assert!(matches!(*error.error, ListingError::Interrupted));
    assert_eq!(listings.walks(), 0);
}
