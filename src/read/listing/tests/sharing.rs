//! One walk, any number of readers: rules 1, 3 and 7.

use futures_util::future::join_all;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_share_one_walk() {
    let (fake, listings) = world(&[50, 50, 0, 50, 17]);
    let readers = (0..1000).map(|index| {
        let listings = listings.clone();
        async move { read_all(&mut open(&listings), [50, 7, 1000, 50][index % 4]).await.unwrap() }
    });
    let all = join_all(readers).await;
    assert!(all.iter().all(|ids| ids.len() == 167 && *ids == all[0]));
    let asked: Vec<_> = lock(&fake.asked).iter().map(|(token, _)| token.clone()).collect();
    assert_eq!(asked, [None, Some("1/1".into()), Some("1/2".into()), Some("1/3".into()), Some("1/4".into())]);
    assert_eq!(lock(&fake.in_flight).most, 1, "one fetch at a time");
    let readers = listings.readers();
    assert_eq!([Outcome::Miss, Outcome::Coalesced, Outcome::Hit].map(|outcome| readers.of(outcome)), [1, 999, 0]);
    let fetches = listings.target(&TargetName::default_target()).unwrap().metrics().fetches();
    let answered = &fetches["answered"];
    assert_eq!(answered.get_sample_count(), 5);
    assert!((answered.get_sample_sum() - (5 * LATENCY).as_secs_f64()).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn orders_of_filters_share_one_walk_and_other_queries_do_not() {
    let (fake, listings) = world(&[3]);
    let filter = |key: &str, values: &[&str]| Filter {
        key: key.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let one = filter("IamRole", &["a", "b"]);
    let other = filter("PingStatus", &["Online"]);
    let reordered = filter("IamRole", &["b", "a"]);
    let of = |filters| Query::new(TargetName::default_target(), filters);
    for (filters, asked) in [
        (Filters::Current(vec![one.clone(), other.clone()]), 1),
        (Filters::Current(vec![other.clone(), reordered]), 1),
        (Filters::Legacy(vec![one.clone(), other.clone()]), 2),
        (Filters::Current(vec![one.clone(), one.clone(), other.clone()]), 3),
        (Filters::Current(vec![one, other]), 3),
    ] {
        let mut reader = listings.open(&of(filters), Freshness::default(), None).unwrap();
        reader.read(5).await.unwrap();
        assert_eq!(fake.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_in_the_middle_of_the_fetch_it_caused_takes_nothing_along() {
    let (fake, listings) = world(&[5]);
    let mut leaving = open(&listings);
    assert!(time::timeout(LATENCY / 2, leaving.read(5)).await.is_err());
    let mut staying = open(&listings);
    let waiting = tokio::spawn(async move { staying.read(5).await.map(|page| page.provenance.served) });
    time::sleep(LATENCY / 4).await;
    drop(leaving);
    assert_eq!(waiting.await.unwrap().unwrap(), Served::Coalesced);
    assert_eq!(fake.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_nobody_waits_for_any_more_leaves_the_line() {
    let (fake, listings) = world(&[5]);
    *lock(&fake.is_jammed) = true;
    let mut leaving = open(&listings);
    let mut staying = open(&listings);
    let both = async { tokio::join!(leaving.read(5), staying.read(5)) };
    assert!(time::timeout(SECOND, both).await.is_err());
    drop(leaving);
    time::sleep(SECOND).await;
    assert_eq!(listings.walks(), 1, "another waits still");
    drop(staying);
    time::sleep(SECOND).await;
    assert_eq!((fake.asked(), listings.walks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_goes_before_what_nobody_does() {
    let (fake, listings) = world(&[5]);
    open(&listings).read(5).await.unwrap();
    time::advance(70 * SECOND).await;
    open_for(&listings, None, Some(30)).read(5).await.unwrap();
    time::sleep(SECOND).await;
    assert_eq!(*lock(&fake.queued), [Priority::Interactive, Priority::Background]);
    let requests = lock(&fake.requests).iter().map(|(priority, _)| *priority).collect::<Vec<_>>();
    assert_eq!(requests, [Priority::Interactive, Priority::Background], "which holds for retries, too");
    *lock(&fake.is_jammed) = true;
    time::advance(70 * SECOND).await;
    open_for(&listings, None, Some(30)).read(5).await.unwrap();
    time::sleep(SECOND).await;
    assert!(time::timeout(SECOND, open(&listings).read(5)).await.is_err());
    assert_eq!(
        lock(&fake.queued)[2..],
        [Priority::Background, Priority::Interactive],
        "whom somebody joined in the line"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_nobody_waits_for_any_more_is_kept_and_the_walk_pauses() {
    let (fake, listings) = world(&[5, 5, 5]);
    let mut reader = open(&listings).streaming();
    assert!(time::timeout(LATENCY / 2, reader.read(5)).await.is_err());
    drop(reader);
    time::sleep(10 * LATENCY).await;
    assert_eq!((fake.asked(), listings.walks()), (1, 0));
    assert_eq!(served(open(&listings)).await, (Served::Hit, false));
}

#[tokio::test(start_paused = true)]
async fn a_page_is_filled_across_upstream_pages_and_empty_ones_and_nothing_is_fetched_beyond() {
    let (fake, listings) = world(&[2, 0, 1, 2, 0]);
    let mut reader = open(&listings);
    assert_eq!(ids(&reader.read(2).await.unwrap()), ["i-0", "i-1"]);
    time::sleep(SECOND).await;
    assert_eq!(fake.asked(), 1);
    assert_eq!(ids(&reader.read(2).await.unwrap()), ["i-2", "i-3"]);
    assert_eq!((fake.asked(), reader.is_at_end()), (4, false));
    assert_eq!(ids(&reader.read(1).await.unwrap()), ["i-4"]);
    assert!(!reader.is_at_end(), "that the last upstream page is empty is not known yet");
    assert_eq!(ids(&reader.read(2).await.unwrap()).len(), 0, "so a walk's last page may be empty");
    assert_eq!((fake.asked(), reader.is_at_end()), (5, true));
    assert_eq!(ids(&reader.read(2).await.unwrap()).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_read_ahead_by_its_window_and_no_further() {
    let (fake, listings) = world(&[5; 20]);
    let mut reader = open(&listings).streaming();
    for taken in 1..=10 {
        reader.read(5).await.unwrap();
        time::sleep(SECOND).await;
        assert_eq!(fake.asked(), taken + 2);
        assert_eq!(listings.walks(), 0, "paused");
    }
    drop(reader);
    time::sleep(SECOND).await;
    assert_eq!(fake.asked(), 12);
}

#[tokio::test(start_paused = true)]
async fn the_first_page_of_a_stream_comes_after_one_upstream_page() {
    let (_, listings) = world(&[50; 2000]);
    let started = Instant::now();
    let mut reader = open(&listings).streaming();
    reader.read(50).await.unwrap();
    assert_eq!(started.elapsed(), LATENCY);
}

#[tokio::test(start_paused = true)]
async fn records_stay_as_aws_gave_them_repeats_included() {
    let fake = Fake::of_sizes(&[]);
    *lock(&fake.pages) = [["a", "b"], ["b", "a"]].map(|page| page.map(str::to_owned).to_vec()).to_vec();
    let all = read_all(&mut open(&listings(&fake, |_| {})), 3).await.unwrap();
    assert_eq!(all, ["a", "b", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn walks_end_when_the_last_handle_and_reader_are_gone() {
    let (fake, listings) = world(&[5, 5]);
    let mut reader = open(&listings);
    assert!(time::timeout(LATENCY / 2, reader.read(5)).await.is_err());
    drop((listings, reader));
    time::sleep(SECOND).await;
    assert_eq!(lock(&fake.in_flight).now, 1, "its fetch was dropped in the middle");
    assert_eq!(Arc::strong_count(&fake), 1, "and nothing else holds the upstream");
}
