//! Makes text from others safe for a terminal: node names, filters, messages of servers.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Returns whether a character controls a terminal, reorders the characters around it, or is invisible: control
/// characters (C0, C1, DEL), bidirectional controls, line separators, and format characters and fillers without a
/// shape. Joiners, which scripts need, do not count.
pub(super) fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{00ad}' | '\u{061c}' | '\u{115f}'..='\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Replaces every unprintable character by U+FFFD.
pub(super) fn harmless(text: &str) -> String {
    text.replace(is_unprintable, "\u{fffd}")
}

/// Escapes every unprintable character of a JSON text as `\uXXXX`. The value stays the same, because such characters
/// occur only in strings.
pub(super) fn harmless_json(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for letter in json.chars() {
        if is_unprintable(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _never_fails = write!(harmless, "\\u{unit:04x}");
            }
        } else {
            harmless.push(letter);
        }
    }
    harmless
}

/// Returns the width of a text in terminal columns: two for a wide character, none for a combining one.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Returns the longest beginning of a text that fits into so many columns.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut taken = 0;
    let has_room = |letter: &char| {
        taken += letter.width().unwrap_or_default();
        taken <= columns
    };
    text.chars().take_while(has_room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_replaced_and_what_scripts_need_is_not() {
        let unprintable = [
            "\u{1b}",
            "\u{7f}",
            "\u{9b}",
            "\r",
            "\u{202e}",
            "\u{2066}",
            "\u{200f}",
            "\u{2028}",
            "\u{e0041}",
            "\u{ad}",
            "\u{115f}",
            "\u{1160}",
            "\u{3164}",
            "\u{ffa0}",
        ];
        for letter in unprintable {
            assert_eq!(harmless(&format!("a{letter}b")), "a\u{fffd}b", "{letter:?}");
        }
        for text in ["日本語", "e\u{301}", "می\u{200c}خواهم", "👩\u{200d}💻", "naïve", "한국어", "ㅎㅏㄴ"]
        {
            assert_eq!(harmless(text), text);
        }
    }

    #[test]
    fn json_is_the_same_with_its_steering_characters_escaped() {
        let value = serde_json::json!({ "a\u{9b}": "\u{202e}\u{1b}[2J\u{e0041}日本" });
        let text = harmless_json(&value.to_string());
        assert!(!text.contains(is_unprintable) && text.contains("日本"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_text_is_cut_by_columns() {
        assert_eq!(
            (cut("日本語", 5), cut("e\u{301}xy", 2), cut("abc", 9)),
            ("日本".into(), "e\u{301}x".into(), "abc".into())
        );
        assert_eq!((width("日本語"), width("e\u{301}x")), (6, 2));
    }
}
