//! What a configuration must not say: values that every call would fail by, and doors that nobody meant to leave open.

use std::{collections::VecDeque, time::Duration};

use toml::Value;

use super::{Config, Target};
use crate::{access::Principal, display::Shown, listing, upstream};

/// The longest that anything may last: clocks end somewhere beyond.
const LONGEST: Duration = Duration::from_hours(24 * 1000);
/// The fewest bytes of headers that a call of gRPC's comes with.
const LEAST_HEADERS: u32 = 1024;

const POSITIVE: &str = "must be more than 0";
const EMPTY: &str = "must not be empty";
const BOUNDED: &str = "must be at most 1000 days";

/// A setting that is wrong.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Its tables and its name, from the outside in.
    pub(super) key: Vec<String>,
    /// What it must be.
    pub(super) rule: String,
}

/// Finds a setting that is wrong.
pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    // Numbers beyond those of TOML, which fail here, come from no file.
    if let Some(key) = Value::try_from(config).ok().and_then(|config| empty(&config)) {
        return Err(Wrong { key: key.into(), rule: EMPTY.to_owned() });
    }
    if let Some(name) = config.default_target.as_ref().filter(|name| !config.targets().contains_key(name)) {
        return Err(wrong(&["default_target"], format!("is {}, and there is no such target", Shown(name.as_str()))));
    }
    edge(config)?;
    access(config)?;
    limits(config)?;
    listings(&config.listing)?;
    admin(config)?;
    traces(config)?;
    upstreams(config)
}

/// Finds what a running gateway must not be told, though it could be started so.
pub(super) fn reload(config: &Config, running: &Config) -> Result<(), Wrong> {
    // An empty file says so, too, and is more likely a mistake.
    let is_opened = running.has_authentication() && !config.has_authentication() && !config.auth.allow_anonymous;
    let rule = "is gone, and everybody could call: say allow_anonymous, or restart";
    require(!is_opened, &["auth"], rule)
}

/// Returns the setting that is an empty text, which nothing that can be configured is.
fn empty(value: &Value) -> Option<VecDeque<String>> {
    let within = |name: &str, inner: &Value| {
        let mut key = empty(inner)?;
        key.push_front(name.to_owned());
        Some(key)
    };
    match value {
        Value::String(text) => text.trim().is_empty().then(VecDeque::new),
        Value::Table(table) => table.iter().find_map(|(name, inner)| within(name, inner)),
        Value::Array(list) => list.iter().enumerate().find_map(|(index, inner)| within(&index.to_string(), inner)),
        _ => None,
    }
}

fn edge(config: &Config) -> Result<(), Wrong> {
    let edge = &config.edge;
    let number = |key, is_right, rule| require(is_right, &["edge", key], rule);
    number("max_concurrent_streams", edge.max_concurrent_streams >= 2, "must be at least 2")?;
    number("max_header_list_size", edge.max_header_list_size >= LEAST_HEADERS, "must be at least 1024")?;
    number("max_connections", edge.max_connections > 0, POSITIVE)?;
    times(
        &["edge"],
        &[
            ("handshake_timeout", edge.handshake_timeout, true),
            ("request_timeout", edge.request_timeout, true),
            ("keepalive_interval", edge.keepalive_interval, true),
            ("keepalive_timeout", edge.keepalive_timeout, true),
            ("max_connection_age", edge.max_connection_age, true),
            ("max_connection_age_grace", edge.max_connection_age_grace, false),
            ("drain_delay", edge.drain_delay, false),
            ("drain_timeout", edge.drain_timeout, false),
            ("reload_interval", edge.reload_interval, true),
        ],
    )
}

/// Whether only those can call who are meant to.
fn access(config: &Config) -> Result<(), Wrong> {
    let (auth, edge) = (&config.auth, &config.edge);
    let (is_local, is_plain) = (edge.listen.is_local(), edge.tls.is_none());
    if !is_local && !config.has_authentication() && !auth.allow_anonymous {
        let rule = format!(
            "is {}, where everybody could call: let callers prove who they are by [auth] or edge.tls.client_ca, or say \
             allow_anonymous (--allow-anonymous)",
            edge.listen
        );
        return Err(wrong(&["edge", "listen"], rule));
    }
    if !is_local && is_plain && auth.has_tokens() && !auth.allow_plaintext_tokens {
        let rule = format!(
            "is {} without [edge.tls], so that others could read tokens: say \
             allow_plaintext_tokens (--allow-plaintext-tokens) if they cannot",
            edge.listen
        );
        return Err(wrong(&["edge", "listen"], rule));
    }
    if config.has_authentication() && config.allow.is_empty() {
        return Err(wrong(&["allow"], "must have a rule, or nobody may call"));
    }
    for (index, rule) in config.allow.iter().enumerate() {
        let index = index.to_string();
        if let Some(why) = unprovable(config, &rule.principal) {
            return Err(wrong(&["allow", &index, "principal"], format!("is {}, {why}", Shown(&rule.principal))));
        }
        times(&["allow", &index], &[("min_max_age", rule.min_max_age, false)])?;
    }
    for (index, token) in auth.tokens.iter().enumerate() {
        let is_twice = auth.tokens.iter().skip(index + 1).any(|other| other.sha256 == token.sha256);
        let key = ["auth", "tokens", &index.to_string()];
        if is_twice {
            return Err(wrong(&[&key[..], &["sha256"]].concat(), "is that of another token, too"));
        }
        if !token.name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(&[&key[..], &["name"]].concat(), "must be visible ASCII"));
        }
    }
    let Some(jwt) = &auth.jwt else { return Ok(()) };
    for (key, is_empty) in [("audiences", jwt.audiences.is_empty()), ("algorithms", jwt.algorithms.is_empty())] {
        require(!is_empty, &["auth", "jwt", key], EMPTY)?;
    }
    times(&["auth", "jwt"], &[("clock_skew", jwt.clock_skew, false)])
}

/// Why no caller can be this principal, or any that the glob means.
fn unprovable(config: &Config, principal: &str) -> Option<&'static str> {
    let (auth, has_certs) = (&config.auth, config.has_client_certs());
    let is_anonymous_admitted = auth.allow_anonymous || !config.has_authentication();
    let (is_provable, why) = match principal.split_once(':') {
        Some((kind, _)) if kind.contains('*') => (true, ""),
        None if principal.contains('*') => (true, ""),
        Some(("spiffe" | "dns", _)) if !has_certs => (false, "which only edge.tls.client_ca could prove"),
        Some(("spiffe", _)) => (
            Principal::is_spiffe_pattern(principal),
            "which no SPIFFE ID is: spiffe://DOMAIN/PATH, the domain in lower case",
        ),
        Some(("dns", name)) => {
            (!name.bytes().any(|byte| byte.is_ascii_uppercase()), "which no name is: they are compared in lower case")
        }
        Some(("jwt", _)) => (auth.jwt.is_some(), "which only [auth.jwt] could prove"),
        Some(("token", name)) => {
            let is_known = name.contains('*') || auth.tokens.iter().any(|token| token.name == name);
            (is_known, "and there is no such token in [[auth.tokens]]")
        }
        None if principal == "anonymous" => (is_anonymous_admitted, "who is not admitted: say auth.allow_anonymous"),
        _ => (false, "which is none of spiffe://…, dns:…, jwt:…, token:…, anonymous and *"),
    };
    (!is_provable).then_some(why)
}

fn limits(config: &Config) -> Result<(), Wrong> {
    let (limits, service) = (config.limits, &config.service);
    for (table, key, number) in [
        ("limits", "max_calls", limits.max_calls),
        ("limits", "max_calls_per_principal", limits.max_calls_per_principal),
        ("service", "max_request_size", service.max_request_size),
    ] {
        require(number > 0, &[table, key], POSITIVE)?;
    }
    times(&["limits"], &[("max_call_time", limits.max_call_time, true)])
}

/// Whether only those are told of the gateway who are meant to.
fn admin(config: &Config) -> Result<(), Wrong> {
    let (admin, is_allowed) = (&config.admin, config.auth.allow_plaintext_tokens);
    let is_local = admin.listen.ip().to_canonical().is_loopback();
    let rule = "would be sent without TLS, so that others could read it: say allow_plaintext_tokens \
                (--allow-plaintext-tokens) if they cannot, or listen on loopback";
    require(is_local || admin.token_sha256.is_none() || is_allowed, &["admin", "token_sha256"], rule)
}

fn traces(config: &Config) -> Result<(), Wrong> {
    let trace = &config.trace;
    let is_receiver = |url: http::Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    let is_url = |url: &String| !url.contains(['@', '?']) && url.parse().is_ok_and(is_receiver);
    let rule = "must be the URL of an OTLP receiver, without user and query, such as http://127.0.0.1:4317";
    require(trace.endpoint.as_ref().is_none_or(is_url), &["trace", "endpoint"], rule)?;
    require((0.0..=1.0).contains(&trace.ratio), &["trace", "ratio"], "must be from 0 to 1")?;
    config.log.check().map_err(|error| wrong(&["log", "filter"], format!("is wrong: {error}")))?;
    times(&["log"], &[("slow_call", config.log.slow_call, true)])
}

fn listings(listing: &listing::Config) -> Result<(), Wrong> {
    let number = |key, is_right, rule| require(is_right, &["listing", key], rule);
    let is_bounded = listing.max_listing_bytes.is_none_or(|bytes| bytes <= listing.max_bytes);
    number("jitter_percent", listing.jitter_percent <= 100, "must be at most 100")?;
    number("breaker_failures", listing.breaker_failures > 0, POSITIVE)?;
    number("page_cap", listing.page_cap > 0, POSITIVE)?;
    number("max_bytes", listing.max_bytes > 0, POSITIVE)?;
    number("max_listing_bytes", is_bounded, "must be at most listing.max_bytes")?;
    times(
        &["listing"],
        &[
            ("ttl", listing.ttl, false),
            ("max_stale", listing.max_stale, false),
            ("negative_ttl", listing.negative_ttl, false),
            ("hold_off", listing.hold_off, false),
            ("max_hold_off", listing.max_hold_off, false),
            ("stall_timeout", listing.stall_timeout, true),
            ("cursor_lifetime", listing.cursor_lifetime, true),
            ("throttle_patience", listing.throttle_patience, false),
        ],
    )
}

fn upstreams(config: &Config) -> Result<(), Wrong> {
    let upstream = &config.upstream;
    require(upstream.longest_line > 0, &["upstream", "longest_line"], POSITIVE)?;
    require(upstream.max_answer_size > 0, &["upstream", "max_answer_size"], POSITIVE)?;
    let is_written = |upstream: &upstream::Config, table: &[&str]| {
        upstream.check().map_err(|error| wrong(&[table, &[error.key()]].concat(), format!("is wrong: {error}")))
    };
    is_written(upstream, &["upstream"])?;
    times(
        &["upstream"],
        &[
            ("connect_timeout", upstream.connect_timeout, true),
            ("attempt_timeout", upstream.attempt_timeout, true),
            ("fetch_timeout", upstream.fetch_timeout, true),
            ("retry_backoff", upstream.retry_backoff, false),
        ],
    )?;
    for (name, target) in &config.targets {
        let table = ["targets", name.as_str()];
        is_written(&target.upstream(upstream), &table)?;
        let Target { connect_timeout, attempt_timeout, fetch_timeout, ttl, max_stale, .. } = target;
        let own = [
            ("connect_timeout", connect_timeout, true),
            ("attempt_timeout", attempt_timeout, true),
            ("fetch_timeout", fetch_timeout, true),
            ("ttl", ttl, false),
            ("max_stale", max_stale, false),
        ];
        let own: Vec<_> = own.iter().filter_map(|(key, time, least)| Some((*key, (**time)?, *least))).collect();
        times(&table, &own)?;
    }
    Ok(())
}

/// Checks times, each with whether it must be more than none.
fn times(table: &[&str], times: &[(&str, Duration, bool)]) -> Result<(), Wrong> {
    for &(key, time, is_positive) in times {
        let rule = match time {
            Duration::ZERO if is_positive => POSITIVE,
            time if time > LONGEST => BOUNDED,
            _ => continue,
        };
        return Err(wrong(&[table, &[key]].concat(), rule));
    }
    Ok(())
}

fn require(is_right: bool, key: &[&str], rule: &str) -> Result<(), Wrong> {
    if is_right { Ok(()) } else { Err(wrong(key, rule)) }
}

fn wrong(key: &[&str], rule: impl Into<String>) -> Wrong {
    Wrong { key: key.iter().map(|part| (*part).to_owned()).collect(), rule: rule.into() }
}

#[cfg(test)]
mod tests;
