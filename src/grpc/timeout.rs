use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::Failure;

/// Returns the time that the caller allows: `grpc-timeout`, at most eight digits and a unit.
///
/// # Errors
/// INVALID_ARGUMENT if the header is no time, or there are two. Other servers ignore it then, and the caller's deadline
/// is lost.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(header) = single(headers, "grpc-timeout")? else { return Ok(None) };
    let timeout = header.to_str().ok().and_then(parse);
    timeout
        .map(Some)
        .ok_or_else(|| Failure::malformed("the grpc-timeout of the call is not up to 8 digits and one of H M S m u n"))
}

/// Returns the header of this name.
///
/// # Errors
/// INVALID_ARGUMENT if there is more than one.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Failure> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Failure::malformed(format!("the call has more than one {name} header"))),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Duration>, Code> {
        let header = HeaderValue::from_bytes(bytes).unwrap();
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), header)]);
        timeout(&headers).map_err(|failure| failure.code())
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (text, expected) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text.as_bytes()), Ok(Some(expected)), "{text:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_timeout_that_is_none_is_an_error_and_not_a_call_without_a_deadline() {
        for text in ["100000000S", "S", "+1S", "-1S", "1", "1s", "1.5S", "1 S", " ", "", "10 seconds"] {
            assert_eq!(read(text.as_bytes()), Err(Code::InvalidArgument), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_timeout_header_panics(bytes in prop::collection::vec(32u8..=255, 0..12)) {
            if HeaderValue::from_bytes(&bytes).is_ok() {
                let _ = read(&bytes);
            }
        }
    }
}
