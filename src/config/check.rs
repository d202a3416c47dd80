//! What a configuration must not say: values that every call would fail by.

use std::time::Duration;

use super::Config;

/// The longest that anything may last: clocks end somewhere beyond.
const LONGEST: Duration = Duration::from_hours(24 * 1000);
/// The fewest bytes of headers that a call of gRPC's comes with.
const LEAST_HEADERS: u32 = 1024;

const POSITIVE: &str = "must be more than 0";
const BOUNDED: &str = "must be at most 1000 days";

/// Finds a setting that is wrong, and what it must be.
pub(super) fn wrong(config: &Config) -> Option<(String, &'static str)> {
    let Config { edge, listing, .. } = config;
    let mut times = vec![
        ("edge.keepalive_interval".to_owned(), edge.keepalive_interval, true),
        ("edge.keepalive_timeout".to_owned(), edge.keepalive_timeout, true),
        ("edge.drain_timeout".to_owned(), edge.drain_timeout, false),
        ("listing.negative_ttl".to_owned(), listing.negative_ttl, false),
        ("listing.hold_off".to_owned(), listing.hold_off, false),
        ("listing.max_hold_off".to_owned(), listing.max_hold_off, false),
        ("listing.stall_timeout".to_owned(), listing.stall_timeout, true),
        ("listing.cursor_lifetime".to_owned(), listing.cursor_lifetime, true),
        ("listing.throttle_patience".to_owned(), listing.throttle_patience, false),
    ];
    for (target, (upstream, listing)) in config.targets() {
        times.extend([
            (format!("connect_timeout of target {target}"), upstream.connect_timeout, true),
            (format!("attempt_timeout of target {target}"), upstream.attempt_timeout, true),
            (format!("fetch_timeout of target {target}"), upstream.fetch_timeout, true),
            (format!("ttl of target {target}"), listing.ttl, false),
            (format!("max_stale of target {target}"), listing.max_stale, false),
        ]);
    }
    let numbers = [
        ("edge.max_concurrent_streams", edge.max_concurrent_streams < 2, "must be at least 2"),
        ("edge.max_header_list_size", edge.max_header_list_size < LEAST_HEADERS, "must be at least 1024"),
        ("listing.jitter_percent", listing.jitter_percent > 100, "must be at most 100"),
        ("upstream.longest_line", config.upstream.longest_line == 0, POSITIVE),
        ("listing.breaker_failures", listing.breaker_failures == 0, POSITIVE),
        ("listing.page_cap", listing.page_cap == 0, POSITIVE),
        ("listing.max_bytes", listing.max_bytes == 0, POSITIVE),
        (
            "listing.max_listing_bytes",
            listing.max_listing_bytes.is_some_and(|bytes| bytes > listing.max_bytes),
            "must be at most listing.max_bytes",
        ),
    ];
    let wrong_number = numbers.into_iter().find(|(_, is_wrong, _)| *is_wrong);
    let wrong_time = times.into_iter().find_map(|(name, time, is_positive)| match time {
        Duration::ZERO if is_positive => Some((name, POSITIVE)),
        time => (time > LONGEST).then_some((name, BOUNDED)),
    });
    wrong_number.map(|(name, _, rule)| (name.to_owned(), rule)).or(wrong_time)
}
