//! Going on where an answer ended: rule 8.

use futures_util::future::join_all;
use proptest::{prelude::*, sample::Index as Sample};

use super::*;

/// Reads one page as a unary call does, by a reader of its own, from the cursor of the call before.
async fn call(listings: &Listings, limit: usize, cursor: Option<&str>) -> (Vec<String>, Option<String>) {
    let mut reader = listings.open(&query(), Freshness::default(), cursor).unwrap();
    let page = reader.read(limit).await.unwrap();
    (ids(&page), (!reader.is_at_end()).then(|| behind(&page)))
}

#[tokio::test(start_paused = true)]
async fn a_walk_by_cursor_stays_on_its_listing_and_shares_it() {
    let (fake, listings) = world(&[5, 5, 5]);
    let (_, cursor) = call(&listings, 7, None).await;
    *lock(&fake.pages) = vec![vec!["changed".to_owned()]; 3];
    let (rest, cursor) = call(&listings, 3, cursor.as_deref()).await;
    assert_eq!(rest, ["i-7", "i-8", "i-9"]);
    assert_eq!(call(&listings, 5, cursor.as_deref()).await, (vec!["changed".to_owned()], None));
    assert_eq!(fake.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_cursor_at_the_end_leads_to_the_end_at_once() {
    let (fake, listings) = world(&[1]);
    let mut reader = open(&listings);
    let last = reader.read(5).await.unwrap();
    let mut resumed = resume(&listings, &behind(&last));
    let page = resumed.read(5).await.unwrap();
    let since = last.provenance.as_of.duration_since(page.provenance.as_of).unwrap();
    assert!(ids(&page).is_empty() && resumed.is_at_end() && since < Duration::from_millis(1));
    assert_eq!(fake.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn readers_that_resume_at_the_same_place_elsewhere_share_one_walk() {
    let (fake, listings) = world(&[5, 5, 5, 5]);
    let (_, cursor) = call(&listings, 8, None).await;
    let cursor = cursor.unwrap();
    let replica = super::listings(&fake, |_| {});
    let readers = (0..100).map(|_| async { read_all(&mut resume(&replica, &cursor), 3).await.unwrap() });
    let all = join_all(readers).await;
    assert!(all.iter().all(|rest| rest.len() == 12 && rest[0] == "i-8" && *rest == all[0]));
    let asked: Vec<_> = lock(&fake.asked).iter().skip(2).map(|(token, _)| token.clone().unwrap()).collect();
    assert_eq!(asked, ["1/1", "1/2", "1/3"], "from the token of the same page");
    assert_eq!(walk(&open(&replica).read(5).await.unwrap()), 2, "and it is never joined from the start");
}

#[tokio::test(start_paused = true)]
async fn a_cursor_into_the_first_page_is_good_elsewhere_too() {
    let (fake, listings) = world(&[5, 5]);
    let (_, cursor) = call(&listings, 2, None).await;
    let replica = super::listings(&fake, |_| {});
    let rest = read_all(&mut resume(&replica, &cursor.unwrap()), 3).await.unwrap();
    assert_eq!((rest.len(), &*rest[0]), (8, "i-2"));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_changed_goes_on_after_the_last_record_given_or_is_given_whole() {
    for (changed, rest) in [
        (vec!["i-0", "i-1", "i-2"], vec!["i-2"]),
        (vec!["i-1", "i-2"], vec!["i-2"]),
        (vec!["x", "i-0", "i-1", "i-2"], vec!["i-2"]),
        (vec!["i-0", "i-2"], vec!["i-0", "i-2"]),
        (vec![], vec![]),
    ] {
        for sizes in [&[3][..], &[0, 3]] {
            let (fake, listings) = world(sizes);
            let (_, cursor) = call(&listings, 2, None).await;
            *lock(&fake.pages).last_mut().unwrap() = changed.iter().map(|id| (*id).to_owned()).collect();
            let replica = super::listings(&fake, |_| {});
            assert_eq!(
                call(&replica, 5, cursor.as_deref()).await,
                (rest.iter().map(|id| (*id).to_owned()).collect(), None)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_records_with_the_same_id_none_is_lost() {
    let of = |ids: &[&str]| vec![ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()];
    let (fake, listings) = world(&[]);
    *lock(&fake.pages) = of(&["a", "b", "a"]);
    let (_, cursor) = call(&listings, 1, None).await;
    *lock(&fake.pages) = of(&["x", "a", "b", "a"]);
    let replica = super::listings(&fake, |_| {});
    assert_eq!(call(&replica, 5, cursor.as_deref()).await.0, ["b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_evicted_while_it_is_read_gives_no_cursor_that_skips_records() {
    for sizes in [&[5, 5, 5][..], &[5]] {
        let (_, listings) = world(sizes);
        let mut reader = open(&listings).streaming();
        reader.read(2).await.unwrap();
        time::sleep(SECOND).await;
        listings.evict_all();
        let listing = reader.subscription.as_ref().unwrap().listing();
        let state = lock(&listing.state);
        assert!(matches!(listing.cursor(&state, 0, 2).unwrap_err(), crate::read::ListingError::Evicted));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_is_good_for_its_lifetime_however_old_its_page_is() {
    let lifetime = Config::default().cursor_lifetime;
    for whole in [true, false] {
        let (_, listings) = world(&[5, 5]);
        open(&listings).read(5).await.unwrap();
        time::advance(lifetime / 5).await;
        let page = open_for(&listings, Some(3600), None).read(if whole { 5 } else { 4 }).await.unwrap();
        time::advance(lifetime * 9 / 10).await;
        resume(&listings, &behind(&page)).read(5).await.unwrap();
        time::advance(lifetime / 5).await;
        let refused = listings.open(&query(), Freshness::default(), Some(&behind(&page)));
        assert_eq!(refused.unwrap_err(), OpenError::InvalidCursor(InvalidCursor::Expired));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_made_up_says_nothing_of_the_query() {
    let (fake, listings) = world(&[5, 5]);
    let made_up = |pages_before| {
        let place =
            crate::read::listing::cursor::ResumePoint { token: Some("1/1".into()), pages_before, ..Default::default() };
        crate::read::listing::cursor::Cursor::At(place)
            .to_text(query().fingerprint(crate::model::Scope::of([])), wall())
    };
    assert!(resume(&listings, &made_up(10_000)).read(5).await.is_err());
    fake.fail([refusal("ValidationException")]);
    assert!(resume(&listings, &made_up(1)).read(5).await.is_err());
    assert_eq!(served(open(&listings)).await, (Served::Miss, false));
    assert_eq!(read_all(&mut resume(&listings, &made_up(1)), 5).await.unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_names_the_listing_of_another_query_is_no_way_into_it() {
    let (_, listings) = world(&[5, 5]);
    let (_, cursor) = call(&listings, 2, None).await;
    let refused = listings.open(&query_of("IamRole"), Freshness::default(), cursor.as_deref());
    assert_eq!(refused.unwrap_err(), OpenError::InvalidCursor(InvalidCursor::OtherQuery));
}

/// What happens between two calls of a walk.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    /// The next call is answered by another replica, or after a restart.
    Elsewhere,
    /// All listings are evicted.
    Evicted,
}

proptest! {
    /// By unary calls or by one reader, at any mix of page sizes, whatever AWS's pages look like and whatever happens
    /// to the listing in between.
    #[test]
    fn a_walk_yields_each_record_once_in_order(
        sizes in prop::collection::vec(0usize..7, 1..8),
        limits in prop::collection::vec(1usize..9, 1..6),
        by_calls: bool,
        between in prop::collection::vec(
            prop_oneof![Just(Between::Nothing), Just(Between::Elsewhere), Just(Between::Evicted)], 1..5),
        is_windowed: bool,
    ) {
        let fake = Fake::of_sizes(&sizes);
        let all = lock(&fake.pages).concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seen = runtime.block_on(async {
            let replica = || listings(&fake, |config| {
                config.max_listing_bytes = is_windowed.then_some(1);
            });
            let mut here = replica();
            let mut reader = open(&here);
            let mut seen = Vec::new();
            for (&limit, between) in limits.iter().cycle().zip(between.iter().cycle()) {
                let page = reader.read(limit).await.unwrap();
                seen.extend(ids(&page));
                if reader.is_at_end() {
                    break;
                }
                assert_eq!(ids(&page).len(), limit, "pages are full until the last");
                if by_calls {
                    let cursor = behind(&page);
                    match between {
                        Between::Nothing => {}
                        Between::Elsewhere => here = replica(),
                        Between::Evicted => here.evict_all(),
                    }
                    reader = resume(&here, &cursor);
                }
            }
            seen
        });
        prop_assert_eq!(seen, all);
    }

    /// Whatever listing, page and record a cursor claims, nothing panics or hangs, and what it yields is the fleet's.
    #[test]
    fn a_cursor_that_was_made_up_does_no_harm(
        listing: bool, walk in prop::option::of(1usize..3), page: Sample, pages_before: u32, offset: usize, last_id: Option<String>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (_, listings) = world(&[3, 0, 3]);
            let mut reader = open(&listings);
            reader.read(4).await.unwrap();
            let listing = if listing { reader.subscription.as_ref().unwrap().listing().id } else { 7 };
            let token = walk.map(|walk| Arc::from(format!("{walk}/{}", page.index(3))));
            let place = crate::read::listing::cursor::ResumePoint { listing, token, pages_before, offset, last_id };
            let text = crate::read::listing::cursor::Cursor::At(place).to_text(query().fingerprint(crate::model::Scope::of([])), wall());
            let rest = time::timeout(60 * SECOND, read_all(&mut resume(&listings, &text), 2)).await.unwrap();
            assert!(rest.is_err() || rest.unwrap().len() <= 6);
            assert_eq!(read_all(&mut open_for(&listings, Some(0), None), 2).await.unwrap().len(), 6);
        });
    }
}
