//! Repairs JSON with invalid UTF-8, lone surrogates or bare control characters. SSM sends such answers, for a host's
//! name that was cut in the middle of a character, say, and the SDK refuses the whole answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use aws_sdk_ssm::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextMut},
    error::BoxError,
};
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::body::SdkBody;

/// What stands where no character is: U+FFFD, as JSON escapes it.
const REPLACEMENT: &[u8] = br"\ufffd";

/// Repairs the answer of one request before it is parsed, and notes whether it had to.
#[derive(Debug, Clone, Default)]
pub(super) struct Repair(Arc<AtomicBool>);

impl Repair {
    /// Returns whether the answer was repaired.
    pub(super) fn has_repaired(&self) -> bool {
        self.0.load(Relaxed)
    }
}

#[dyn_dispatch_hint]
impl Intercept for Repair {
    fn name(&self) -> &'static str {
        "Repair"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        if let Some(repaired) = body.bytes().and_then(repair) {
            *body = SdkBody::from(repaired);
            self.0.store(true, Relaxed);
        }
        Ok(())
    }
}

/// Returns the text with U+FFFD in place of each lone surrogate, each run of bytes that is no UTF-8 and each bare
/// control character within a string; none where nothing has to be replaced.
fn repair(json: &[u8]) -> Option<Vec<u8>> {
    let mut repaired: Option<Vec<u8>> = None;
    let mut at = 0;
    let mut is_string = false;
    while let Some(&byte) = json.get(at) {
        let rest = json.get(at..).unwrap_or_default();
        let (taken, is_right) = match byte {
            b'\\' if is_string => escape(rest),
            0..0x20 if is_string => (1, false),
            0x80.. => character(rest),
            _ => (1, true),
        };
        is_string ^= byte == b'"';
        if is_right {
            if let Some(repaired) = &mut repaired {
                repaired.extend_from_slice(rest.get(..taken).unwrap_or_default());
            }
        } else {
            let repaired = repaired.get_or_insert_with(|| json.get(..at).unwrap_or_default().to_vec());
            repaired.extend_from_slice(REPLACEMENT);
        }
        at += taken;
    }
    repaired
}

/// Returns the length of the escape that a text begins with, and whether the escape stands for a character.
fn escape(text: &[u8]) -> (usize, bool) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(br"\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, true),
        (Some(0xd800..0xe000), _) => (6, false),
        (Some(_), _) => (6, true),
        (None, _) => (2, true),
    }
}

/// Returns the length of the character that a text begins with, and whether it is valid.
fn character(text: &[u8]) -> (usize, bool) {
    match text.get(..text.len().min(4)).unwrap_or_default().utf8_chunks().next() {
        Some(chunk) if !chunk.valid().is_empty() => (chunk.valid().chars().next().map_or(1, char::len_utf8), true),
        Some(chunk) => (chunk.invalid().len().max(1), false),
        None => (1, false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn repaired(json: &[u8]) -> String {
        let repaired = repair(json).expect("it is broken");
        serde_json::from_slice::<Value>(&repaired).unwrap()["a"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_no_character_is_replaced_and_all_else_stays() {
        for (broken, expected) in [
            (&br#"{"a":"web-\ud83d"}"#[..], "web-\u{fffd}"),
            (br#"{"a":"\ud83dx\ude00"}"#, "\u{fffd}x\u{fffd}"),
            (br#"{"a":"\ud83d\ud83d\ude00"}"#, "\u{fffd}\u{1f600}"),
            (b"{\"a\":\"\xff-\xc3\xa9\xf0\x9f\x98\"}", "\u{fffd}-\u{e9}\u{fffd}"),
            (b"{\"a\":\"one\x00two\x1b\"}", "one\u{fffd}two\u{fffd}"),
            (br#"{"b":"\\ud83d\"","a":"\udc00"}"#, "\u{fffd}"),
        ] {
            assert_eq!(repaired(broken), expected, "{}", broken.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_json_at_all_is_left_to_the_parser() {
        for text in [&b""[..], b"{", br#"{"a":"\"#, br#"{"a":"\u12"}"#, b"<html>\n</html>"] {
            assert_eq!(repair(text), None, "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn json_that_is_right_is_left_alone(text in any::<String>(), escaped: bool) {
            let json = serde_json::json!({ "a": text }).to_string();
            let ascii: String = json.encode_utf16().map(|unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => format!("\\u{unit:04x}"),
            }).collect();
            let json = if escaped { ascii } else { json };
            prop_assert_eq!(repair(json.as_bytes()), None);
        }

        #[test]
        fn any_bytes_in_a_string_become_json(bytes: Vec<u8>) {
            let bytes: Vec<u8> = bytes.into_iter().filter(|byte| !b"\"\\".contains(byte)).collect();
            let json = [b"{\"a\":\"", &bytes[..], b"\"}"].concat();
            let repaired = repair(&json).unwrap_or(json);
            prop_assert!(serde_json::from_slice::<Value>(&repaired).is_ok());
        }
    }
}
