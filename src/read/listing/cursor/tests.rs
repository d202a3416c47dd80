use proptest::prelude::*;

use super::*;

const QUERY: [u8; 16] = [7; 16];
const HOUR: Duration = Duration::from_hours(1);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn start() -> Cursor {
    Cursor::At(ResumePoint::default())
}

fn any_cursor() -> impl Strategy<Value = Cursor> {
    let token = prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9+/]{0,12}={0,2}",
        any::<Vec<u8>>().prop_map(|raw| BASE64_STANDARD.encode(raw))
    ];
    let parts = (any::<u64>(), prop::option::of(token), any::<u32>(), any::<usize>(), any::<Option<String>>());
    let place = parts.prop_map(|(listing, token, pages_before, offset, last_id)| {
        Cursor::At(ResumePoint { listing, token: token.map(Arc::from), pages_before, offset, last_id })
    });
    let end = (0..4_000_000_000_000u64).prop_map(|millis| Cursor::End(UNIX_EPOCH + Duration::from_millis(millis)));
    prop_oneof![place, end]
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(cursor in any_cursor()) {
        let text = cursor.to_text(QUERY, now());
        prop_assert_eq!(Cursor::parse(&text, QUERY, now(), HOUR), Ok(cursor));
    }

    #[test]
    fn the_text_is_safe_in_a_url(cursor in any_cursor()) {
        let text = cursor.to_text(QUERY, now());
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn a_cursor_of_another_query_is_refused(cursor in any_cursor(), other: [u8; 16]) {
        prop_assume!(other != QUERY);
        let text = cursor.to_text(other, now());
        prop_assert_eq!(Cursor::parse(&text, QUERY, now(), HOUR), Err(InvalidCursor::OtherQuery));
    }

    #[test]
    fn any_damage_is_noticed(cursor in any_cursor(), at: prop::sample::Index, by in 1..=255u8) {
        let text = cursor.to_text(QUERY, now());
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        *at.get_mut(&mut bytes) ^= by;
        let damaged = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        prop_assert_eq!(Cursor::parse(&damaged, QUERY, now(), HOUR), Err(InvalidCursor::Malformed));
        let cut = &text[..at.index(text.len())];
        prop_assert_eq!(Cursor::parse(cut, QUERY, now(), HOUR), Err(InvalidCursor::Malformed));
    }

    #[test]
    fn no_text_panics(text in any::<String>(), bytes: Vec<u8>) {
        prop_assert!(Cursor::parse(&text, QUERY, now(), HOUR).is_err());
        prop_assert!(Cursor::parse(&BASE64_URL_SAFE_NO_PAD.encode(&bytes), QUERY, now(), HOUR).is_err());
        // With the right check bytes, so that the payload is reached.
        let checked = [&[VERSION], check(&bytes).as_slice(), &bytes].concat();
        let _ = Cursor::parse(&BASE64_URL_SAFE_NO_PAD.encode(checked), QUERY, now(), HOUR);
    }
}

#[test]
fn a_cursor_expires_with_its_lifetime_and_not_before() {
    let text = start().to_text(QUERY, now());
    let read = |at| Cursor::parse(&text, QUERY, at, HOUR);
    assert_eq!(read(now() + HOUR - Duration::from_millis(1)), Ok(start()));
    assert_eq!(read(now() + HOUR), Err(InvalidCursor::Expired));
    assert_eq!(read(now() - HOUR), Ok(start()));
}

#[test]
fn a_token_of_aws_takes_no_more_than_its_own_length() {
    let token = BASE64_STANDARD.encode([7; 900]);
    let place = ResumePoint { token: Some(token.as_str().into()), ..ResumePoint::default() };
    assert!(Cursor::At(place).to_text(QUERY, now()).len() < token.len() + 100);
}

#[test]
fn a_cursor_of_another_version_is_malformed() {
    let text = start().to_text(QUERY, now());
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    bytes[0] = VERSION + 1;
    let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    assert_eq!(Cursor::parse(&text, QUERY, now(), HOUR), Err(InvalidCursor::Malformed));
}

/// Cursors outlive a release: what this one writes must be read by the next.
#[test]
fn a_cursor_of_an_earlier_release_is_read() {
    for (token, listing, written) in [
        (
            "AAEBexample+/==",
            0,
            "ATE5-6f10kxLChAHBwcHBwcHBwcHBwcHBwcHEIDYwaKMNBoPQUFFQmV4YW1wbGUrLz09IAMoFDITaS0wMTIzNDU2Nzg5YWJjZGVmMA",
        ),
        (
            "AAEBexample+/==",
            7,
            "Ad591v-YLq7nChAHBwcHBwcHBwcHBwcHBwcHEIDYwaKMNBoPQUFFQmV4YW1wbGUrLz09IAMoFDITaS0wMTIzNDU2Nzg5YWJjZGVmMEEHAAAAAAAAAA",
        ),
        (
            "AAEBexample+",
            7,
            "AehuPk2iwH__ChAHBwcHBwcHBwcHBwcHBwcHEIDYwaKMNCADKBQyE2ktMDEyMzQ1Njc4OWFiY2RlZjBBBwAAAAAAAABKCQABAXsWpqZXvg",
        ),
    ] {
        let cursor = Cursor::At(ResumePoint {
            listing,
            token: Some(token.into()),
            pages_before: 3,
            offset: 20,
            last_id: Some("i-0123456789abcdef0".into()),
        });
        assert_eq!(cursor.to_text(QUERY, now()), written);
        assert_eq!(Cursor::parse(written, QUERY, now(), HOUR), Ok(cursor));
    }
}
