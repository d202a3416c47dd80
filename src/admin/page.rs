//! The status as a page for browsers. The page refreshes itself without scripts.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Caller, Listing, Reads, Status, Target};

/// How often the page refreshes itself, in seconds.
const REFRESH: u32 = 5;

const STYLE: &str = "
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
h1 { font-size: 1.4em; margin: 0 0 .2em; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; }
table { border-collapse: collapse; } th, td { padding: .25em .8em .25em 0; text-align: left; vertical-align: top; white-space: nowrap; }
.wide { white-space: normal; }
th { color: #666; font-weight: normal; border-bottom: 1px solid #ccc; } td { border-bottom: 1px solid #eee; }
.n { text-align: right; font-variant-numeric: tabular-nums; } .dim { color: #666; }
.good { color: #1a7f37; } .bad { color: #b3261e; font-weight: 600; }
dl { display: flex; flex-wrap: wrap; gap: .6em 2em; margin: 1em 0 0; } dt { color: #666; } dd { margin: 0; font-size: 1.15em; }";

pub(super) fn page(status: &Status) -> String {
    let Status { version, targets, callers, listings, listing_count, .. } = status;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content=(REFRESH);
                meta name="viewport" content="width=device-width";
                title { "ssm-gateway" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "ssm-gateway " span.dim { (version) } }
                (head(status))
                h2 { "Targets" }
                (target_table(targets))
                @if !callers.is_empty() {
                    h2 { "Active calls" }
                    (caller_table(callers))
                }
                h2 { "Listings " span.dim { "the " (listings.len()) " most recently used, of " (listing_count) } }
                (listing_table(listings))
                p.dim { "As " a href="/status" { "JSON" } ", " a href="/metrics" { "metrics" } ", " a href="/config" { "configuration" } "." }
            }
        }
    };
    page.into_string()
}

fn head(status: &Status) -> Markup {
    let Status { calls, memory, .. } = status;
    let reads = status.reads();
    let stage = if status.stage == "serving" { "good" } else { "bad" };
    html! {
        @if let Some(why) = &status.unready { p.bad { "Not ready: " (why) } }
        @if status.has_reload_failed { p.bad { "The last configuration is invalid: the previous one stays in use" } }
        dl {
            div { dt { "stage" } dd class=(stage) { (status.stage) @if status.unready.is_none() { ", ready" } } }
            div { dt { "up for" } dd { (seconds(status.uptime_seconds)) } }
            div { dt { "connections" } dd { (status.connections) } }
            div { dt { "active calls" } dd { (calls.active) } }
            div { dt { "calls ended" } dd { (calls.ended) } }
            div { dt { "of them failed" } dd { (calls.failed) } }
            div { dt { "hit ratio" } dd { (percent(reads.shared(), reads.total())) } }
            div { dt { "listings" } dd { (bytes(memory.bytes)) " of " (bytes(memory.max_bytes)) } }
            div { dt { "evictions" } dd { (memory.evictions) } }
        }
    }
}

fn target_table(targets: &[Target]) -> Markup {
    html! {
        table {
            tr {
                th { "target" } th { "region" } th { "state" } th.n { "rate" } th.n { "waiting" } th.n { "fetches" }
                th.n { "throttled" } th.n { "retries" } (read_heads()) th { "last answered" } th { "last error" }
            }
            @for target in targets {
                @let class = match target.state.as_str() { "ready" => "good", "unused" => "dim", _ => "bad" };
                tr {
                    td {
                        (target.name)
                        @if target.is_default { span.dim { " default" } }
                        @if target.is_required { span.dim { " required" } }
                    }
                    td { (target.region) }
                    td class=(class) { (target.state) }
                    td.n { (rate(target.rate)) span.dim { " of " (rate(target.max_rate)) } }
                    td.n { (target.waiting) }
                    td.n { (target.fetches) }
                    td.n { (target.throttled) }
                    td.n { (target.retries) }
                    (reads(target.reads))
                    td { (target.last_answered.as_deref().unwrap_or("never")) }
                    // Dimmed while the target is ready, because the error may be old.
                    td.wide.dim[class == "good"] {
                        @if let Some(error) = &target.last_error {
                            (error.what)
                            @if let Some(code) = &error.aws_error_code { " (" (code) ")" }
                            br; span.dim { (error.at) }
                            @if let Some(id) = &error.aws_request_id { br; span.dim { "AWS request " (id) } }
                        }
                    }
                }
            }
        }
    }
}

fn caller_table(callers: &[Caller]) -> Markup {
    html! {
        table {
            tr { th { "of" } th.n { "calls" } }
            @for Caller { principal, active } in callers { tr { td { (principal) } td.n { (active) } } }
        }
    }
}

fn listing_table(listings: &[Listing]) -> Markup {
    html! {
        table {
            tr {
                th { "target" } th { "filters" } th { "state" } th.n { "age" } th.n { "pages" } th.n { "bytes" }
                th.n { "readers" } th.n { "slowest" } (read_heads())
            }
            @for listing in listings {
                tr {
                    td { (listing.target) }
                    td.wide { @if listing.filters.is_empty() { span.dim { "none" } } @else { (listing.filters) } }
                    td.bad[listing.state == "broken"] {
                        (listing.state)
                        @if listing.is_advancing { span.dim { " advancing" } }
                    }
                    td.n { (listing.age_seconds.map_or_else(|| "-".to_owned(), |age| format!("{age:.1} s"))) }
                    td.n { (listing.pages) }
                    td.n { (bytes(listing.bytes)) }
                    td.n { (listing.readers) }
                    td.n { (format!("{:.0} s", listing.slowest_reader_seconds)) }
                    (reads(listing.reads))
                }
            }
        }
    }
}

fn read_heads() -> Markup {
    html! { th.n { "hit" } th.n { "miss" } th.n { "coalesced" } th.n { "stale" } th.n { "refused" } th.n { "failed" } }
}

fn reads(reads: Reads) -> Markup {
    let Reads { hit, miss, coalesced, stale, refused, failed } = reads;
    html! { @for count in [hit, miss, coalesced, stale, refused, failed] { td.n { (count) } } }
}

fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Formats a rate with one decimal.
fn rate(rate: f64) -> String {
    format!("{rate:.1}")
}

fn percent(part: u64, whole: u64) -> String {
    (100 * part).checked_div(whole).map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"))
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is printed")]
fn bytes(bytes: usize) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Failure, Memory};

    /// Checks that a page is well-formed HTML: elements are closed in order, no element has an attribute twice, values
    /// are quoted, and `<`, `>` and `&` in text are escaped.
    fn check_html(page: &str) {
        let is_text = |text: &str| {
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
            let rest = entities.iter().fold(text.to_owned(), |rest, entity| rest.replace(entity, ""));
            !rest.contains(['<', '>', '&'])
        };
        let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a doctype");
        let mut open: Vec<&str> = Vec::new();
        while let Some((text, after)) = rest.split_once('<') {
            assert!(is_text(text) && (!open.is_empty() || text.is_empty()), "text {text:?} in {open:?}");
            let (tag, after) = after.split_once('>').expect("a tag that ends");
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closed before {rest:.100}");
                continue;
            }
            let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "<{tag}>");
            let mut names = Vec::new();
            while !attributes.is_empty() {
                let (attribute, after) = attributes.split_once("=\"").unwrap_or_else(|| panic!("a value in <{tag}>"));
                let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("quotes in <{tag}>"));
                assert!(is_text(value) && !names.contains(&attribute), "{attribute} in <{tag}>");
                assert!(attribute.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "<{tag}>");
                assert!(after.is_empty() || after.starts_with(' '), "blanks in <{tag}>");
                names.push(attribute);
                attributes = after.trim_start();
            }
            if !["meta", "br"].contains(&name) {
                open.push(name);
            }
        }
        assert!(open.is_empty() && rest.is_empty(), "{open:?} at the end, {rest:?}");
    }

    /// Returns a status that fills every part of the page.
    fn full() -> Status {
        let what = "<b>&\"'\u{202e}".to_owned();
        let last_error = Failure { what: what.clone(), aws_error_code: Some(what.clone()), ..Failure::default() };
        let last_error = Some(Failure { aws_request_id: Some(what.clone()), ..last_error });
        let target =
            Target { name: what.clone(), is_default: true, is_required: true, last_error, ..Target::default() };
        let targets = ["ready", "unused", "denied"].map(|state| Target { state: state.to_owned(), ..target.clone() });
        let listing = Listing { filters: what.clone(), is_advancing: true, ..Listing::default() };
        let listings = ["complete", "broken"].map(|state| Listing { state: state.to_owned(), ..listing.clone() });
        Status {
            unready: Some(what.clone()),
            has_reload_failed: true,
            targets: targets.to_vec(),
            listings: [&listings[..], &[Listing::default()]].concat(),
            callers: vec![Caller { principal: what, active: 1 }],
            memory: Memory { bytes: 1 << 21, ..Memory::default() },
            ..Status::default()
        }
    }

    #[test]
    fn the_page_is_well_formed_html() {
        check_html(&page(&Status::default()));
        let page = page(&full());
        check_html(&page);
        assert!(page.contains("<td class=\"wide dim\">") && page.contains("<td class=\"wide\">"), "{page}");
    }

    #[test]
    fn the_check_of_html_sees_what_is_wrong() {
        for wrong in [
            "<p class=\"a\" class=\"b\"></p>",
            "<p class=a></p>",
            "<p class=\"a\"id=\"b\"></p>",
            "<p>a & b</p>",
            "<p>a > b</p>",
            "<p><b></p></b>",
            "<p>",
            "text",
        ] {
            let page = format!("<!DOCTYPE html>{wrong}");
            std::panic::catch_unwind(|| check_html(&page)).expect_err(wrong);
        }
    }

    #[test]
    fn what_callers_wrote_is_text_and_nothing_else() {
        let listing = Listing { filters: "tag:<script>=\"x\"".to_owned(), ..Listing::default() };
        let page = page(&Status { listings: vec![listing], ..Status::default() });
        assert!(page.contains("tag:&lt;script&gt;=") && !page.contains("<script"), "{page}");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([bytes(12), bytes(1536), bytes(256 << 20)], ["12 B", "1.5 KiB", "256.0 MiB"]);
        assert_eq!([percent(1, 3), percent(0, 0)], ["33 %", "-"]);
        assert_eq!((seconds(90).as_str(), rate(1e6).as_str()), ("1m 30s", "1000000.0"));
    }
}
