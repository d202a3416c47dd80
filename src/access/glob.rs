/// Returns whether a pattern, in which `*` stands for any characters, matches a text, in a time of at most the product
/// of both lengths.
///
/// Patterns compose: if `a` matches the text of pattern `b`, `a` matches every text that `b` matches. `Policy` relies
/// on this to authorise a caller's glob.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern = pattern.as_bytes();
    let text = text.as_bytes();
    let mut at = 0;
    let mut in_text = 0;
    // The last star, and where the text that it stands for ends: only this star is ever stretched.
    let mut star = None;
    while let Some(letter) = text.get(in_text) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(expected) if expected == letter => (at, in_text) = (at + 1, in_text + 1),
            _ => match star {
                None => return false,
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (at, in_text) = (after + 1, taken + 1);
                }
            },
        }
    }
    pattern.iter().skip(at).all(|&letter| letter == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        for pattern in ["default", "*", "def*", "*ault", "d*f*t", "**"] {
            assert!(matches(pattern, "default"), "{pattern}");
        }
        for pattern in ["", "Default", "defaul", "*x*", "default*x"] {
            assert!(!matches(pattern, "default"), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_a_mebibyte_of_stars_is_matched_at_once() {
        let stars = "*".repeat(1 << 20);
        assert!(matches(&stars, "default"));
        assert!(!matches(&format!("{stars}x"), "default"));
    }

    proptest! {
        #[test]
        fn a_pattern_that_matches_a_pattern_matches_every_text_of_it(
            wide in "[ab*]{0,6}",
            narrow in "[ab*]{0,6}",
            text in "[ab]{0,8}",
        ) {
            if matches(&wide, &narrow) && matches(&narrow, &text) {
                prop_assert!(matches(&wide, &text));
            }
        }
    }
}
