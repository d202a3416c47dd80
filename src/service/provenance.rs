//! How old an answer is and how it came, in HTTP's own words: `age` (RFC 9111) and `cache-status` (RFC 9211).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    grpc::Noted,
    read::{Outcome, Page, Provenance, Served},
};

const AGE: HeaderName = HeaderName::from_static("age");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Writes both headers.
pub(super) fn write(provenance: &Provenance, headers: &mut HeaderMap) {
    headers.insert(AGE, HeaderValue::from(provenance.age.as_secs()));
    // A header of these words and digits cannot be refused.
    headers.extend(HeaderValue::try_from(cache_status(provenance)).ok().map(|value| (CACHE_STATUS, value)));
}

/// Notes how a page came, unless another was noted before.
pub(super) fn note(page: &Page, noted: &mut Noted) {
    if noted.provenance.is_none() {
        noted.provenance = Some(Outcome::from(&page.provenance).as_str());
        noted.aws_request_id.clone_from(&page.aws_request_id);
    }
}

fn cache_status(provenance: &Provenance) -> String {
    let Provenance { age, max_age, .. } = provenance;
    match provenance.served {
        // Past the whole second, so that what is stale never reads as fresh.
        _ if provenance.is_stale => {
            format!("ssm-gateway; hit; ttl=-{}", age.saturating_sub(*max_age).as_secs() + 1)
        }
        Served::Hit => format!("ssm-gateway; hit; ttl={}", max_age.saturating_sub(*age).as_secs()),
        _ if provenance.is_forced => "ssm-gateway; fwd=request".to_owned(),
        Served::Miss => "ssm-gateway; fwd=uri-miss".to_owned(),
        Served::Coalesced => "ssm-gateway; fwd=uri-miss; collapsed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn of(age: Duration, served: Served) -> Provenance {
        let as_of = SystemTime::now();
        let max_age = Duration::from_mins(1);
        Provenance { as_of, age, max_age, is_stale: false, served, is_forced: false }
    }

    #[test]
    fn every_way_an_answer_comes_has_its_words() {
        let now = Duration::ZERO;
        let stale = Provenance { is_stale: true, ..of(Duration::from_secs(90), Served::Hit) };
        let forced = Provenance { is_forced: true, ..of(now, Served::Miss) };
        for (provenance, age, words) in [
            (of(Duration::from_millis(48_700), Served::Hit), "48", "ssm-gateway; hit; ttl=11"),
            (stale, "90", "ssm-gateway; hit; ttl=-31"),
            (of(now, Served::Miss), "0", "ssm-gateway; fwd=uri-miss"),
            (of(now, Served::Coalesced), "0", "ssm-gateway; fwd=uri-miss; collapsed"),
            (forced, "0", "ssm-gateway; fwd=request"),
        ] {
            let mut headers = HeaderMap::new();
            write(&provenance, &mut headers);
            assert_eq!((&headers["age"], &headers["cache-status"]), (&age.parse().unwrap(), &words.parse().unwrap()));
        }
    }

    #[test]
    fn what_has_just_become_stale_reads_as_stale() {
        let stale = Provenance { is_stale: true, ..of(Duration::from_mins(1), Served::Hit) };
        assert_eq!(cache_status(&stale), "ssm-gateway; hit; ttl=-1");
    }
}
