use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use proptest::prelude::*;
use prost::Message as _;

use crate::{
    listing::{Config, ListingError, Listings, Page, cursor::Cursor},
    model::{Filters, Query, RecordsBuilder, TargetName},
    proto::{InstanceInformation, StreamInstanceInformationResponse},
    upstream::{AwsError, Upstream, UpstreamError, UpstreamPage},
};

/// An upstream whose pages are given; the token of a page is its index. Counts what it is asked.
#[derive(Debug, Default)]
struct Pages {
    given: Mutex<Vec<Vec<String>>>,
    asked: Mutex<Vec<Option<String>>>,
    failures: Mutex<VecDeque<UpstreamError>>,
    repeats_tokens: bool,
}

impl Pages {
    fn new(pages: &[&[&str]]) -> Arc<Self> {
        let pages = pages.iter().map(|page| page.iter().map(|id| (*id).to_owned()).collect()).collect();
        Arc::new(Self { given: Mutex::new(pages), ..Self::default() })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Upstream for Pages {
    fn fetch<'a>(
        &'a self,
        _: &'a Filters,
        token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<UpstreamPage, UpstreamError>> {
        self.asked.lock().unwrap().push(token.map(str::to_owned));
        if let Some(error) = self.failures.lock().unwrap().pop_front() {
            return async { Err(error) }.boxed();
        }
        let index: usize = token.map_or(0, |token| token.parse().unwrap());
        let pages = self.given.lock().unwrap();
        let mut records = RecordsBuilder::default();
        for id in &pages[index] {
            let node = InstanceInformation { instance_id: Some(id.clone()), ..Default::default() };
            records.push(&node.encode_to_vec());
        }
        let next = if self.repeats_tokens { 0 } else { index + 1 };
        let page = UpstreamPage {
            records: records.build(),
            next_token: (next < pages.len()).then(|| next.to_string()),
            as_of: UNIX_EPOCH + Duration::from_secs(index as u64),
        };
        async { Ok(page) }.boxed()
    }
}

fn listings(upstream: &Arc<Pages>) -> Listings {
    let upstream: Arc<dyn Upstream> = Arc::<Pages>::clone(upstream);
    Config::default().build(upstream)
}

fn query() -> Query {
    Query::new(TargetName::default_target(), Filters::Current(Vec::new()))
}

fn ids(page: &Page) -> Vec<String> {
    let message = StreamInstanceInformationResponse::decode(page.records.concat().as_slice()).unwrap();
    message.instance_information_list.into_iter().filter_map(|node| node.instance_id).collect()
}

/// Reads one page as a unary call does: a reader of its own, from the cursor of the call before.
async fn call(
    listings: &Listings,
    limit: usize,
    cursor: Option<&str>,
) -> Result<(Vec<String>, Option<String>), ListingError> {
    let mut reader = listings.open(&query(), cursor).unwrap();
    let page = reader.read(limit).await?;
    Ok((ids(&page), (!reader.is_at_end()).then(|| reader.cursor())))
}

#[tokio::test]
async fn a_page_is_filled_across_upstream_pages_and_empty_ones() {
    let upstream = Pages::new(&[&["a", "b"], &[], &["c"], &["d", "e"]]);
    let mut reader = listings(&upstream).open(&query(), None).unwrap();
    let page = reader.read(4).await.unwrap();
    assert_eq!(ids(&page), ["a", "b", "c", "d"]);
    assert_eq!(page.as_of, UNIX_EPOCH, "the oldest fetch's time");
    let page = reader.read(4).await.unwrap();
    assert_eq!(ids(&page), ["e"]);
    assert_eq!(page.as_of, UNIX_EPOCH + Duration::from_secs(3));
    assert!(reader.is_at_end());
    assert_eq!(upstream.asked(), 4);
}

#[tokio::test]
async fn nothing_is_fetched_beyond_what_fills_the_page() {
    let upstream = Pages::new(&[&["a", "b"], &[]]);
    let listings = listings(&upstream);
    let (page, cursor) = call(&listings, 2, None).await.unwrap();
    assert_eq!((page.len(), upstream.asked()), (2, 1));
    let (page, cursor) = call(&listings, 2, cursor.as_deref()).await.unwrap();
    assert_eq!((page.len(), cursor), (0, None), "the last page may be empty");
}

#[tokio::test]
async fn the_cursor_at_the_end_leads_to_the_end_at_once() {
    let upstream = Pages::new(&[&["a"]]);
    let listings = listings(&upstream);
    let mut reader = listings.open(&query(), None).unwrap();
    reader.read(5).await.unwrap();
    let mut resumed = listings.open(&query(), Some(&reader.cursor())).unwrap();
    let page = resumed.read(5).await.unwrap();
    assert_eq!((ids(&page).len(), page.as_of, resumed.is_at_end()), (0, UNIX_EPOCH, true));
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn a_repeated_token_is_an_error_and_never_a_silent_end() {
    let mut upstream = Pages::new(&[&["a"], &["b"]]);
    Arc::get_mut(&mut upstream).unwrap().repeats_tokens = true;
    let mut reader = listings(&upstream).open(&query(), None).unwrap();
    assert!(matches!(reader.read(50).await, Err(ListingError::RepeatedToken)));
    assert_eq!(upstream.asked(), 2);
}

#[tokio::test]
async fn a_walk_is_bounded_even_over_calls() {
    let upstream = Pages::new(&[&["a"], &["b"], &["c"]]);
    let port: Arc<dyn Upstream> = Arc::<Pages>::clone(&upstream);
    let config = Config { page_cap: 2, ..Config::default() };
    let listings = config.build(port);
    let (_, cursor) = call(&listings, 1, None).await.unwrap();
    let (_, cursor) = call(&listings, 1, cursor.as_deref()).await.unwrap();
    assert!(matches!(call(&listings, 1, cursor.as_deref()).await, Err(ListingError::PageCap(2))));
}

#[tokio::test]
async fn a_token_that_aws_no_longer_takes_expires_the_listing() {
    let upstream = Pages::new(&[&["a"], &["b"]]);
    let listings = listings(&upstream);
    let (_, cursor) = call(&listings, 1, None).await.unwrap();
    let refusal = AwsError { code: Some("InvalidNextToken".into()), ..AwsError::default() };
    upstream.failures.lock().unwrap().push_back(UpstreamError::InvalidRequest(refusal));
    assert!(matches!(call(&listings, 1, cursor.as_deref()).await, Err(ListingError::Expired(_))));
}

#[tokio::test]
async fn after_a_failure_a_reader_goes_on_where_it_was() {
    let upstream = Pages::new(&[&["a"], &["b"]]);
    let mut reader = listings(&upstream).open(&query(), None).unwrap();
    assert_eq!(ids(&reader.read(1).await.unwrap()), ["a"]);
    upstream.failures.lock().unwrap().push_back(UpstreamError::Throttled(AwsError::default()));
    assert!(matches!(reader.read(1).await, Err(ListingError::Upstream(UpstreamError::Throttled(_)))));
    assert_eq!(ids(&reader.read(1).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn a_page_that_changed_goes_on_after_the_last_record_given_or_is_given_whole() {
    for (changed, rest) in [
        (vec!["a", "b", "c"], vec!["c"]),
        (vec!["b", "c"], vec!["c"]),
        (vec!["x", "a", "b", "c"], vec!["c"]),
        (vec!["a", "c"], vec!["a", "c"]),
        (vec![], vec![]),
    ] {
        let upstream = Pages::new(&[&["a", "b", "c"]]);
        let listings = listings(&upstream);
        let (_, cursor) = call(&listings, 2, None).await.unwrap();
        *upstream.given.lock().unwrap() = vec![changed.iter().map(|id| (*id).to_owned()).collect()];
        let (page, _) = call(&listings, 5, cursor.as_deref()).await.unwrap();
        assert_eq!(page, rest, "{changed:?}");
    }
}

proptest! {
    /// By unary calls or by one reader, at any mix of page sizes, whatever AWS's pages look like.
    #[test]
    fn a_walk_yields_each_record_once_in_order(
        lengths in prop::collection::vec(0usize..7, 1..8),
        limits in prop::collection::vec(1usize..9, 1..6),
        by_calls: bool,
    ) {
        let mut names = (0..).map(|index| format!("i-{index}"));
        let pages: Vec<Vec<String>> =
            lengths.iter().map(|&length| names.by_ref().take(length).collect()).collect();
        let all = pages.concat();
        let upstream = Arc::new(Pages { given: Mutex::new(pages), ..Pages::default() });
        let listings = listings(&upstream);
        let read = async {
            let mut reader = listings.open(&query(), None).unwrap();
            let mut seen = Vec::new();
            for &limit in limits.iter().cycle() {
                let page = reader.read(limit).await.unwrap();
                seen.extend(ids(&page));
                if reader.is_at_end() {
                    return seen;
                }
                assert_eq!(ids(&page).len(), limit, "pages are full until the last");
                if by_calls {
                    reader = listings.open(&query(), Some(&reader.cursor())).unwrap();
                }
            }
            seen
        };
        prop_assert_eq!(read.now_or_never().unwrap(), all);
    }
}

#[test]
fn the_start_is_where_a_reader_without_a_cursor_begins() {
    let listings = listings(&Pages::new(&[]));
    let reader = listings.open(&query(), None).unwrap();
    assert_eq!(reader.cursor, Cursor::start());
}
