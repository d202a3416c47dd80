use std::{iter, str::FromStr};

use crate::proto::InstanceInformationStringFilter;

const SYNTAX: &str = "a filter is KEY=VALUE[,VALUE...], with \\, for a comma in a value";

/// A filter on the command line: `KEY=VALUE[,VALUE...]`. Blanks around the key and the values are ignored. A backslash
/// escapes a comma, a blank, an equals sign or a backslash, as in the AWS CLI's shorthand; before any other character
/// it is a backslash.
#[derive(Debug, Clone)]
pub(super) struct Filter(pub(super) InstanceInformationStringFilter);

/// A character, and whether a backslash escapes it.
type Letter = (char, bool);

impl FromStr for Filter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let letters = letters(text);
        let mut parts = letters.splitn(2, |letter| *letter == ('=', false));
        let (key, values) = parts.next().zip(parts.next()).ok_or(SYNTAX)?;
        let values = values.split(|letter| *letter == (',', false)).map(part).collect::<Result<_, _>>()?;
        Ok(Self(InstanceInformationStringFilter { key: Some(part(key)?), values }))
    }
}

fn letters(text: &str) -> Vec<Letter> {
    let mut rest = text.chars().peekable();
    let next = || {
        let letter = rest.next()?;
        let escaped = rest.next_if(|next| letter == '\\' && matches!(next, ',' | '=' | '\\' | ' '));
        Some(escaped.map_or((letter, false), |letter| (letter, true)))
    };
    iter::from_fn(next).collect()
}

/// Returns a key or a value without the blanks around it.
fn part(mut letters: &[Letter]) -> Result<String, &'static str> {
    let is_blank = |(letter, is_escaped): &Letter| letter.is_whitespace() && !is_escaped;
    while let [blank, rest @ ..] = letters
        && is_blank(blank)
    {
        letters = rest;
    }
    while let [rest @ .., blank] = letters
        && is_blank(blank)
    {
        letters = rest;
    }
    if letters.is_empty() {
        return Err("the key or a value is empty: a filter is KEY=VALUE[,VALUE...]");
    }
    Ok(letters.iter().map(|(letter, _)| letter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, Vec<String>), &'static str> {
        text.parse::<Filter>().map(|Filter(filter)| (filter.key.unwrap(), filter.values))
    }

    #[test]
    fn every_key_and_value_can_be_said() {
        for (text, key, values) in [
            ("PingStatus=Online", "PingStatus", &["Online"][..]),
            ("PlatformTypes=Windows,MacOS", "PlatformTypes", &["Windows", "MacOS"]),
            (" PlatformTypes = Windows, MacOS ,\tLinux ", "PlatformTypes", &["Windows", "MacOS", "Linux"]),
            (r"tag:Name=a\,b,c", "tag:Name", &["a,b", "c"]),
            (r"tag:My Key=two words", "tag:My Key", &["two words"]),
            (r"tag:Name=\ a\ ,b", "tag:Name", &[" a ", "b"]),
            (r"tag:a\=b=c=d", "tag:a=b", &["c=d"]),
            (r"tag:Path=C:\Users,a\\,b\\\,c", "tag:Path", &[r"C:\Users", r"a\", r"b\,c"]),
            (r"tag:Name=a\", "tag:Name", &[r"a\"]),
        ] {
            assert_eq!(parsed(text).unwrap(), (key.to_owned(), values.iter().map(|&value| value.to_owned()).collect()));
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in
            ["PingStatus", r"PingStatus\=Online", "", "=Online", " =Online", "PingStatus=", "a=b,", "a=b,,c", "a= "]
        {
            parsed(text).expect_err(text);
        }
    }
}
