use std::ops::Range;

use toml::de::Error;

use crate::display::Shown;

/// Returns the line that an error of the parser is about, from 1.
pub(super) fn line(text: &str, error: &Error) -> Option<usize> {
    let Range { start, .. } = error.span()?;
    Some(text.get(..start)?.matches('\n').count() + 1)
}

/// Returns what is wrong in the parser's words, without the value that is wrong: the file has secrets in it, and one
/// that stands at the wrong key must not be logged. The parser's own display shows the whole line.
pub(super) fn reason(error: &Error) -> String {
    let message = error.message();
    let reason = match message.split_once(' ') {
        Some(("unknown", rest)) => unknown(rest),
        Some(("invalid", rest)) => invalid(rest),
        _ => None,
    };
    reason.unwrap_or_else(|| without_quoted(message))
}

/// Rewrites serde's ``unknown field `KEY`, expected one of `…`, `…` ``, and the same about a variant, which is a value.
fn unknown(rest: &str) -> Option<String> {
    let (what, rest) = rest.split_once(" `")?;
    let Some((given, expected)) = rest.rsplit_once("`, expected ") else { return Some(format!("unknown {what}")) };
    let named = if what == "field" && Shown(given).is_shown() && !given.contains(' ') {
        format!(" `{given}`")
    } else {
        String::new()
    };
    Some(format!("unknown {what}{named}, expected {expected}{}", hint(given, expected)))
}

/// Rewrites serde's `invalid type: string "VALUE", expected …`, and the same about a value.
fn invalid(rest: &str) -> Option<String> {
    let (what, rest) = rest.split_once(": ")?;
    let (given, expected) = rest.rsplit_once(", expected ")?;
    let kind = given.split(['"', '`']).next()?.trim_end();
    Some(format!("invalid {what}: {kind}, expected {expected}"))
}

/// Removes what a message of our own types or of another crate quotes.
fn without_quoted(message: &str) -> String {
    match message.split_once('"').map(|(before, rest)| (before, rest.rsplit_once('"'))) {
        Some((before, Some((_, after)))) => format!("{before}…{after}"),
        Some((before, None)) => format!("{before}…"),
        None => message.to_owned(),
    }
}

/// Returns a hint at the expected word that is most like the given one, if any is.
fn hint(given: &str, expected: &str) -> String {
    let distance = |known: &&str| strsim::damerau_levenshtein(given, known);
    let nearest = expected.split('`').skip(1).step_by(2).min_by_key(distance);
    let nearest = nearest.filter(|nearest| distance(nearest) <= nearest.len() / 2);
    nearest.map(|nearest| format!(" (did you mean {nearest}?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn of(text: &str) -> String {
        reason(&toml::from_str::<Config>(text).unwrap_err())
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_one_that_looks_like_it() {
        let is_hinted = |text: &str, hint: &str| {
            let reason = of(text);
            assert!(reason.ends_with(hint) && reason.contains("did you mean") != hint.is_empty(), "{reason}");
        };
        is_hinted("[targets.prod]\nregoin = 'eu-west-1'", " (did you mean region?)");
        is_hinted("[listing]\nmax-stale = '1m'", " (did you mean max_stale?)");
        is_hinted("[listing]\nzzzzzzzz = 1", "");
        is_hinted("[listing]\nttl = 'never'", "");
        is_hinted("[[allow]]\nprincipal = '*'\nmethods = ['ListTarget']", " (did you mean ListTargets?)");
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_line_and_with_what_is_known() {
        let text = "[edge]\nlisten = \"127.0.0.1:0\"\nlissten = 1\n";
        let reason = of(text);
        assert!(reason.starts_with("unknown field `lissten`, expected one of `listen`, "), "{reason}");
        assert_eq!(line(text, &toml::from_str::<Config>(text).unwrap_err()), Some(3));
    }

    #[test]
    fn a_value_is_not_shown_whatever_is_wrong_with_it() {
        for text in [
            "[edge]\nlisten = 's3cr\"et, expected x'",
            "[edge]\nmax_connections = 's3cret'",
            "[edge]\nmax_connections = '''s3cret`, expected'''",
            "[edge]\nreload_interval = '5s3cret'",
            "[upstream]\nexternal_id = ['s3cret']",
            "[upstream]\nexternal_id = { s3cret = 1 ",
            "[upstream]\nrequests_per_second = 's3cret'",
            "[upstream]\nexternal_id = s3cret",
            "[upstream]\nexternal_id = 's3cret",
            "[upstream]\nexternal_id = \"s3cret\\q\"",
            "[upstream]\nexternal_id = \"\"\"s3cret",
            "[auth]\ntokens = 's3cret'",
            "[[auth.tokens]]\nname = 'ci'\nsha256 = 's3cret'",
            "[[auth.tokens]]\nname = 'ci'\ntoken = 's3cret'",
            "[[auth.tokens]]\nname = 'ci'\n's3cret is the token' = 1",
            "[auth.jwt]\njwks = 'a'\nissuer = 'b'\naudiences = ['c']\nalgorithms = ['s3cret`, expected `RS256']",
            "[targets.'s3cret!']",
            "[admin]\nlisten = 's3cret'",
            "[log]\nformat = 's3cret'",
            "default_target = 's3cret!'",
            "s3cret",
            "s3cret!",
            "= 's3cret'",
            "[upstream]\nexternal_id = 1\nexternal_id = 's3cret'",
        ] {
            let reason = of(text);
            assert!(!reason.contains("s3cr") && !reason.contains("et,") && !reason.is_empty(), "{text}: {reason}");
        }
    }
}
