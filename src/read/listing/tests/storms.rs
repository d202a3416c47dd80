//! Many callers while upstream throttles: what they are given, and what that costs.

use futures_util::future::join_all;

use super::*;

#[tokio::test(start_paused = true)]
async fn five_hundred_callers_a_second_are_answered_at_once_while_upstream_throttles() {
    let (fake, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    time::advance(61 * SECOND).await;
    fake.fail((0..100).map(|_| throttle(None)));
    let mut waited = Vec::new();
    for call in 0..5000 {
        let started = Instant::now();
        if call % 2 == 0 {
            assert_eq!(served(open_for(&listings, None, Some(60))).await, (Served::Hit, true));
        } else {
            assert!(open_for(&listings, None, Some(0)).read(5).await.unwrap_err().retry_after.is_some());
        }
        waited.extend(Some(started.elapsed()).filter(|waited| !waited.is_zero()));
        time::advance(SECOND / 500).await;
    }
    // At 0 s, and after hold-offs of 1, 2 and 4 s; whoever did not ask did not wait.
    assert_eq!(fake.asked(), 1 + 4);
    assert!(waited.len() <= 4 && waited.iter().all(|waited| *waited <= LATENCY), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_complete_listing_goes_before_a_newer_one_that_stands_still_for_who_accepts_its_age() {
    let (fake, listings) = world(&[2; 4]);
    read_all(&mut open(&listings), 2).await.unwrap();
    time::advance(70 * SECOND).await;
    let mut newer = open(&listings);
    newer.read(4).await.unwrap();
    fake.fail([throttle(None)]);
    assert!(newer.read(2).await.is_err());
    drop(newer);
    let page = open_for(&listings, None, Some(30)).read(8).await.unwrap();
    assert_eq!((walk(&page), page.provenance.served, page.provenance.is_stale), (1, Served::Hit, true));
    let page = open_for(&listings, Some(0), Some(90)).read(8).await.unwrap();
    assert_eq!((walk(&page), page.provenance.is_stale), (1, true), "in place of the error, too");
    assert_eq!(walk(&open(&listings).read(4).await.unwrap()), 2, "its pages are there for all others");
    assert!(open(&listings).read(5).await.is_err());
    assert_eq!(fake.asked(), 7);
    time::advance(SECOND).await;
    let page = open_for(&listings, None, Some(30)).read(8).await.unwrap();
    assert_eq!((walk(&page), page.provenance.is_stale, fake.asked()), (2, false, 9), "taken up, not begun anew");
}

#[tokio::test(start_paused = true)]
async fn while_throttling_lasts_a_walk_is_joined_within_its_bounds_however_many_streams_wait_for_it() {
    let fake = Fake::of_sizes(&[5; 8]);
    let listings = listings(&fake, |config| config.stall_timeout = Duration::MAX);
    let mut stream = open(&listings).streaming();
    stream.read(5).await.unwrap();
    time::sleep(50 * SECOND).await;
    fake.fail((0..4).map(|_| throttle(Some(10 * SECOND))));
    let stream = tokio::spawn(async move { read_all(&mut stream, 5).await.unwrap().len() });
    time::sleep(5 * SECOND).await;
    let mut joining = open(&listings).streaming();
    assert_eq!(walk(&joining.read(5).await.unwrap()), 1);
    let joining = tokio::spawn(async move { read_all(&mut joining, 5).await.unwrap().len() });
    time::sleep(10 * SECOND).await;
    let page = open_for(&listings, None, Some(30)).read(5).await.unwrap();
    assert_eq!((walk(&page), page.provenance.served, page.provenance.is_stale), (1, Served::Hit, true));
    assert!(open(&listings).read(5).await.unwrap_err().retry_after.is_some(), "older than its TTL");
    assert!(open_for(&listings, Some(60), None).read(5).await.is_err());
    assert_eq!((stream.await.unwrap(), joining.await.unwrap(), fake.asked()), (35, 35, 8 + 4));
}

/// Reads a whole listing as a client does that waits as advised: by unary calls, or by streams that it takes up again.
async fn patient(listings: &Listings, is_stream: bool) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = None::<String>;
    loop {
        let reader = listings.open(&query(), Freshness::default(), cursor.as_deref()).unwrap();
        let mut reader = if is_stream { reader.streaming() } else { reader };
        loop {
            match reader.read(5).await {
                Ok(page) => {
                    all.extend(ids(&page));
                    cursor = Some(behind(&page));
                }
                Err(error) => {
                    time::sleep(error.retry_after.unwrap()).await;
                    break;
                }
            }
            if reader.is_at_end() {
                return all;
            }
            if !is_stream {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttle_storm_costs_as_many_calls_for_a_thousand_callers_as_for_one() {
    for callers in [1, 2, 100, 1000] {
        let (fake, listings) = world(&[5; 8]);
        *lock(&fake.throttles_every) = 2;
        // They come while the walk takes its eight seconds, and after.
        let read = async |caller: u32| {
            time::sleep(10 * SECOND * caller / callers).await;
            patient(&listings, caller % 2 == 1).await
        };
        let all = join_all((0..callers).map(read)).await;
        assert!(all.iter().all(|ids| ids.len() == 40 && *ids == all[0]));
        assert_eq!(fake.asked(), 8 + 7, "each page once, and once in vain between any two, for {callers} callers");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_data_in_a_storm_costs_one_call_a_hold_off_however_many_take_it() {
    let (fake, listings) = world(&[5; 4]);
    read_all(&mut open(&listings), 5).await.unwrap();
    time::advance(61 * SECOND).await;
    // Two pages of the refresh come, and no more.
    fake.succeed(2);
    fake.fail((0..100).map(|_| throttle(None)));
    for call in 0..5000 {
        let max_age = [None, Some(1)][call % 2];
        let limit = [5, 20][call / 2 % 2];
        let page = open_for(&listings, max_age, Some(120)).read(limit).await.unwrap();
        assert_eq!(ids(&page).len(), limit);
        time::advance(SECOND / 500).await;
    }
    // At 0 s, and after hold-offs of 1, 2 and 4 s.
    assert_eq!(fake.asked(), 4 + 2 + 4);
}
