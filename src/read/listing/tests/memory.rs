//! The bounds of memory and of patience: rule 10.

use super::*;
use crate::read::ListingError;

/// Bytes of a listing with one page of 50 nodes, generously.
const LISTING: usize = 14_000;

/// Room for three listings of one page.
fn room_for_three(fake: &Arc<Fake>) -> Listings {
    listings(fake, |config| {
        config.max_bytes = 3 * LISTING;
        config.max_listing_bytes = Some(3 * LISTING);
    })
}

fn reader(listings: &Listings, key: &str) -> Reader {
    listings.open(&query_of(key), Freshness::default(), None).unwrap()
}

/// Whether the query's listing is still there.
async fn is_kept(listings: &Listings, key: &str) -> bool {
    served(reader(listings, key)).await.0 == Served::Hit
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_counted_and_what_is_gone_is_not() {
    let (_, listings) = world(&[50, 50]);
    assert_eq!(listings.bytes(), 0);
    let mut reader = open(&listings);
    let page = reader.read(50).await.unwrap();
    let one = listings.bytes();
    let encoded = bytes(&resume(&listings, &behind(&page)).read(50).await.unwrap()).len();
    let both = listings.bytes();
    assert!(one > encoded && both > one + encoded && both < 5 * encoded / 2, "{encoded} {one} {both}");
    listings.evict_all();
    assert_eq!(listings.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_listing_goes_first() {
    let fake = Fake::of_sizes(&[50]);
    let listings = room_for_three(&fake);
    for key in ["a", "b", "c"] {
        reader(&listings, key).read(50).await.unwrap();
    }
    assert!(is_kept(&listings, "a").await);
    while listings.evictions() == 0 {
        let key = listings.bytes().to_string();
        reader(&listings, &key).read(50).await.unwrap();
    }
    assert!(is_kept(&listings, "a").await && !is_kept(&listings, "b").await);
    assert!(listings.bytes() <= 3 * LISTING);
}

#[tokio::test(start_paused = true)]
async fn a_tail_is_used_by_who_resumes_in_it() {
    let fake = Fake::of_sizes(&[50, 50]);
    let cursor = behind(&open(&listings(&fake, |_| {})).read(50).await.unwrap());
    let listings = room_for_three(&fake);
    let resumed = async || resume(&listings, &cursor).read(50).await.unwrap().provenance.served;
    assert_eq!(resumed().await, Served::Miss);
    for key in ["a", "b", "c", "d"] {
        reader(&listings, key).read(50).await.unwrap();
        assert_eq!(resumed().await, Served::Hit, "{key}");
    }
    assert!(listings.evictions() > 0);
}

#[tokio::test(start_paused = true)]
async fn queries_that_fail_take_bounded_memory_too() {
    let fake = Fake::of_sizes(&[1]);
    let listings = room_for_three(&fake);
    for index in 0..1000 {
        fake.fail([refusal("InvalidFilterKey")]);
        reader(&listings, &format!("key {index}")).read(5).await.unwrap_err();
        assert!(listings.bytes() <= 3 * LISTING);
    }
    assert!(listings.evictions() > 980, "errors count: {}", listings.evictions());
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_read_stays_while_another_can_go() {
    let fake = Fake::of_sizes(&[50, 50]);
    let listings = room_for_three(&fake);
    let mut reading = reader(&listings, "a");
    reading.read(50).await.unwrap();
    for key in ["b", "c", "d", "e"] {
        reader(&listings, key).read(50).await.unwrap();
    }
    assert!(listings.evictions() > 0);
    assert_eq!(ids(&reading.read(50).await.unwrap())[0], "i-50");
}

#[tokio::test(start_paused = true)]
async fn over_the_bound_the_listing_with_the_slowest_reader_goes_and_its_token_goes_on() {
    let fake = Fake::of_sizes(&[50, 50, 50]);
    let listings = room_for_three(&fake);
    let mut slow = reader(&listings, "slow");
    let mut quick = reader(&listings, "quick");
    let cursor = behind(&slow.read(50).await.unwrap());
    time::advance(SECOND).await;
    for _ in 0..3 {
        quick.read(50).await.unwrap();
    }
    let error = slow.read(50).await.unwrap_err();
    assert!(matches!(*error.error, ListingError::Evicted));
    let resumed = listings.open(&query_of("slow"), Freshness::default(), Some(&cursor)).unwrap();
    drop((slow, quick));
    assert_eq!(read_all(&mut { resumed }, 50).await.unwrap()[0], "i-50");
}

#[tokio::test(start_paused = true)]
async fn a_listing_over_its_cap_is_a_window_under_its_readers() {
    let fake = Fake::of_sizes(&[50; 100]);
    let all = lock(&fake.pages).concat();
    let listings = listings(&fake, |config| config.max_listing_bytes = Some(2 * LISTING));
    let mut readers: Vec<_> = (0..3).map(|_| open(&listings).streaming()).collect();
    let mut seen = vec![Vec::new(); 3];
    while !readers.iter().all(Reader::is_at_end) {
        for (reader, seen) in readers.iter_mut().zip(&mut seen) {
            seen.extend(ids(&reader.read(50).await.unwrap()));
        }
        assert!(listings.bytes() < 6 * LISTING, "{}", listings.bytes());
    }
    assert!(seen.iter().all(|seen| *seen == all));
    assert_eq!(fake.asked(), 100);
    assert_eq!(walk(&open(&listings).read(5).await.unwrap()), 2, "it is no longer joined from the start");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_outgrows_the_cap_stops_there() {
    let fake = Fake::of_sizes(&[1; 10]);
    let listings = listings(&fake, |config| config.max_listing_bytes = Some(2 * LISTING));
    read_all(&mut open(&listings), 1).await.unwrap();
    *lock(&fake.pages) = vec![vec!["i-7".to_owned(); 50]; 10];
    time::advance(70 * SECOND).await;
    assert_eq!(served(open_for(&listings, None, Some(30))).await, (Served::Hit, true));
    time::sleep(10 * SECOND).await;
    assert_eq!((fake.asked(), listings.walks()), (10 + 3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_for_an_evicted_listing_is_not_kept() {
    let (_, listings) = world(&[5]);
    let mut reader = open(&listings);
    let evict = async {
        time::sleep(LATENCY / 2).await;
        listings.evict_all();
    };
    let (read, ()) = tokio::join!(reader.read(5), evict);
    assert!(matches!(*read.unwrap_err().error, ListingError::Evicted));
    time::sleep(LATENCY).await;
    assert_eq!((listings.bytes(), listings.walks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_nothing_for_a_minute_ends_and_holds_nothing_back() {
    let fake = Fake::of_sizes(&[50; 100]);
    let listings = listings(&fake, |config| config.max_listing_bytes = Some(2 * LISTING));
    let mut stuck = open(&listings).streaming();
    let mut quick = open(&listings).streaming();
    let [stuck_at, quick_at] = [stuck.read(50).await, quick.read(50).await].map(|page| behind(&page.unwrap()));
    time::advance(61 * SECOND).await;
    assert!(matches!(*quick.read(50).await.unwrap_err().error, ListingError::Stalled));
    let mut quick = resume(&listings, &quick_at).streaming();
    assert_eq!(read_all(&mut quick, 50).await.unwrap().len(), 99 * 50);
    assert!(listings.bytes() < 6 * LISTING, "its place is not kept");
    assert!(matches!(*stuck.read(50).await.unwrap_err().error, ListingError::Stalled));
    assert_eq!(ids(&resume(&listings, &stuck_at).read(50).await.unwrap())[0], "i-50");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_from_one_of_its_readers_keeps_them_all() {
    let (_, listings) = world(&[5; 20]);
    let clock = Arc::default();
    let other = listings.open(&query_of("other"), Freshness::default(), None).unwrap();
    let mut one = open(&listings).with_clock(&clock);
    let mut other = other.with_clock(&clock);
    other.read(5).await.unwrap();
    for _ in 0..5 {
        one.read(5).await.unwrap();
        time::advance(30 * SECOND).await;
    }
    assert_eq!(ids(&other.read(5).await.unwrap())[0], "i-5");
    time::advance(61 * SECOND).await;
    assert!(matches!(*one.read(5).await.unwrap_err().error, ListingError::Stalled));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_came_and_is_not_fetched_for_a_minute_is_not_kept() {
    let fake = Fake::of_sizes(&[50; 20]);
    let listings = listings(&fake, |config| config.max_listing_bytes = Some(1));
    let mut stuck = open(&listings);
    let mut quick = open(&listings);
    // Asked for, and not looked for any more: so it is where a connection takes nothing.
    let mut asked_for = Box::pin(stuck.read(50));
    assert!(futures_util::poll!(&mut asked_for).is_pending());
    let cursor = behind(&quick.read(50).await.unwrap());
    drop(quick);
    time::advance(61 * SECOND).await;
    assert_eq!(read_all(&mut resume(&listings, &cursor), 50).await.unwrap().len(), 19 * 50);
    assert!(listings.bytes() < 6 * LISTING, "{}", listings.bytes());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_for_us_is_not_stalled() {
    let (fake, listings) = world(&[5, 5]);
    let mut reader = open(&listings);
    reader.read(5).await.unwrap();
    *lock(&fake.latency) = 100 * SECOND;
    reader.read(5).await.unwrap();
}
