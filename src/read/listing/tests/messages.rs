//! How much goes into a page of ours, whatever upstream's are like.

use proptest::prelude::*;

use super::*;
use crate::read::listing::reading::MAX_BYTES;

/// Reads to the end, every other page by a reader of its own, as unary calls do.
async fn pages(listings: &Listings, limit: usize) -> Vec<Page> {
    let mut reader = open(listings);
    let mut pages = Vec::new();
    loop {
        let page = reader.read(limit).await.unwrap();
        let cursor = behind(&page);
        pages.push(page);
        if reader.is_at_end() {
            return pages;
        }
        if pages.len() % 2 == 1 {
            reader = resume(listings, &cursor);
        }
    }
}

/// How many bytes of a message each record is.
fn size(node: &InstanceInformation) -> usize {
    StreamInstanceInformationResponse { instance_information_list: vec![node.clone()], ..Default::default() }
        .encoded_len()
}

async fn is_well_cut(sizes: Vec<usize>, padding: Vec<usize>, limit: usize) {
    let fake = Fake::of_sizes(&sizes);
    let all = lock(&fake.pages).concat();
    *lock(&fake.padding) = padding;
    let listings = listings(&fake, |config| (config.max_bytes, config.max_listing_bytes) = (1 << 30, Some(1 << 30)));
    let cut: Vec<_> = pages(&listings, limit).await.iter().map(|page| (nodes(page), bytes(page).len())).collect();
    let given: Vec<_> = cut.iter().flat_map(|(nodes, _)| nodes).map(|node| node.instance_id().to_owned()).collect();
    assert_eq!(given, all);
    for (index, (nodes, message)) in cut.iter().enumerate() {
        let bytes: usize = nodes.iter().map(size).sum();
        assert!(nodes.len() <= limit && (bytes <= MAX_BYTES || nodes.len() == 1), "{} {bytes}", nodes.len());
        assert!(nodes.len() <= 1 || *message < 4 << 20, "{message}");
        // All but the last are as full as they may be.
        let next = cut.get(index + 1).and_then(|(nodes, _)| nodes.first());
        assert!(
            next.is_none_or(|next| nodes.len() == limit || bytes + size(next) > MAX_BYTES),
            "{} {bytes}",
            nodes.len()
        );
    }
    assert_eq!(fake.asked(), sizes.len());
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn pages_are_full_and_end_before_clients_refuse_them(
        sizes in prop::collection::vec(1usize..5, 1..4),
        padding in prop::collection::vec(
            prop_oneof![Just(10usize), Just(100_000), Just(900_000), Just(MAX_BYTES / 2 - 40), Just(MAX_BYTES - 20), Just(5_000_000)],
            1..6,
        ),
        limit in 1usize..9,
    ) {
        run(is_well_cut(sizes, padding, limit));
    }
}

#[test]
fn a_page_of_many_nodes_is_cut_into_pages_of_the_size_that_is_asked_for() {
    for limit in [1, 7, 50, 51, 52, 1000, 9000] {
        run(is_well_cut(vec![51, 51, 20], vec![200], limit));
    }
    for limit in [1000, 5001] {
        run(is_well_cut(vec![5000, 5001, 1], vec![20], limit));
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_one_fetch_stands_ready_only_where_it_is_what_was_asked_for() {
    let fake = Fake::of_sizes(&[51, 51]);
    let listings = listings(&fake, |_| {});
    let is_ready = async |limit: usize| open(&listings).read(limit).await.unwrap().rendered.is_some();
    assert_eq!([is_ready(50).await, is_ready(51).await, is_ready(52).await], [false, true, false]);
    *lock(&fake.padding) = vec![100_000];
    let page = open_for(&listings, Some(0), None).read(51).await.unwrap();
    assert!(page.rendered.is_none(), "and where a message has room for it");
}

#[tokio::test(start_paused = true)]
async fn a_page_with_a_cursor_stands_ready_only_until_it_is_known_that_nothing_follows() {
    let (_, listings) = world(&[2, 0]);
    let mut first = open(&listings);
    assert!(first.read(2).await.unwrap().rendered.is_some() && !first.is_at_end());
    first.read(2).await.unwrap();
    let mut other = open(&listings);
    assert!(other.read(2).await.unwrap().rendered.is_none() && other.is_at_end());
}

#[tokio::test(start_paused = true)]
async fn a_cursor_far_into_a_large_page_is_good_elsewhere_too() {
    let fake = Fake::of_sizes(&[3, 5000, 3]);
    let cursor = behind(&open(&listings(&fake, |_| {})).read(4003).await.unwrap());
    let page = resume(&listings(&fake, |_| {}), &cursor).read(1000).await.unwrap();
    assert_eq!(ids(&page), (4003..5003).map(|id| format!("i-{id}")).collect::<Vec<_>>());
    lock(&fake.pages)[1].rotate_right(7);
    let page = resume(&listings(&fake, |_| {}), &cursor).read(50).await.unwrap();
    assert_eq!(ids(&page)[0], "i-4003", "though the page has changed");
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_large_pages_is_a_window_under_its_readers() {
    /// Bytes of a page.
    const PAGE: usize = 5000 * 240;
    let fake = Fake::of_sizes(&[5000; 8]);
    let listings = listings(&fake, |config| config.max_listing_bytes = Some(2 * PAGE));
    let mut readers: Vec<_> = (0..3).map(|_| open(&listings).streaming()).collect();
    let mut seen = vec![Vec::new(); 3];
    let mut most = 0;
    while !readers.iter().all(Reader::is_at_end) {
        for (reader, seen) in readers.iter_mut().zip(&mut seen) {
            seen.extend(ids(&reader.read(1000).await.unwrap()));
        }
        most = most.max(listings.bytes());
    }
    assert!(seen[0].len() == 40_000 && seen.iter().all(|other| *other == seen[0]));
    // As with small pages, no more than six are kept: those that are read, two ahead, and what comes meanwhile.
    assert!(most < 6 * PAGE, "{most}");
    assert_eq!(fake.asked(), 8);
}
