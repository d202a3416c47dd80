/// Tells whether `pattern`, in which `*` stands for any characters, means this text. It takes no more time than the
/// product of both lengths, whatever the pattern.
///
/// A pattern is a text, too: one that means another means all that the other one does.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut in_text) = (0, 0);
    // Where the last star was, and how far the text was when it came: only that one is ever taken back.
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
    fn a_pattern_means_a_name_or_a_glob() {
        for pattern in ["default", "*", "def*", "*ault", "d*f*t", "**"] {
            assert!(matches(pattern, "default"), "{pattern}");
        }
        for pattern in ["", "Default", "defaul", "*x*", "default*x"] {
            assert!(!matches(pattern, "default"), "{pattern}");
        }
    }

    #[test]
    fn no_pattern_takes_the_stack_or_the_day() {
        let stars = "*".repeat(1 << 20);
        assert!(matches(&stars, "default"));
        assert!(!matches(&format!("{stars}x"), "default"));
    }

    proptest! {
        #[test]
        fn what_means_a_glob_means_all_that_the_glob_does(wide in "[ab*]{0,6}", narrow in "[ab*]{0,6}", text in "[ab]{0,8}") {
            if matches(&wide, &narrow) && matches(&narrow, &text) {
                prop_assert!(matches(&wide, &text));
            }
        }
    }
}
