//! What the fuzzer begins with, and all that it ever found, sent in once more: no fuzzer is needed to know that it stays mended.

#[expect(unreachable_pub, reason = "it is a library to the fuzzer")]
#[path = "../../fuzz/src/lib.rs"]
mod harness;

use std::fs;

use crate::support::root;

/// Sends in every seed of a target, and tells how many there are.
fn replay(target: &str, send: fn(&[u8])) -> usize {
    let seeds = fs::read_dir(root().join("fuzz/seeds").join(target)).unwrap();
    seeds.map(|seed| send(&fs::read(seed.unwrap().path()).unwrap())).count()
}

#[test]
fn cursors() {
    assert!(replay("cursor", harness::cursor) >= 5);
    for nodes in 1..=6 {
        harness::cursor(harness::given_cursor(nodes).as_bytes());
    }
}

#[test]
fn requests() {
    assert!(replay("request", harness::request) >= 5);
}

#[test]
fn bearer_tokens() {
    assert!(replay("jwt", harness::jwt) >= 5);
}

#[test]
fn files_of_certificates_and_keys() {
    assert!(replay("pem", harness::pem) >= 5);
}

#[test]
fn frames_of_peers() {
    assert!(replay("frames", harness::frames) >= 5);
}

#[test]
fn frames_with_authorities() {
    assert!(replay("authority", harness::authority) >= 5);
}

#[test]
fn configurations() {
    assert!(replay("config", harness::config) >= 5);
}

#[test]
fn answers_of_aws() {
    assert!(replay("answer", harness::answer) >= 5);
}
