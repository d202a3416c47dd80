use toml::de::{DeTable, DeValue};

/// Returns the line, from 1, on which `text` has the setting of this key, or else the innermost of its tables. The key
/// has tables, indices of lists and the setting, from the outside in.
pub(super) fn of(text: &str, key: &[String]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut value = &DeValue::Table(document.get_ref().clone());
    for part in key {
        let found = match value {
            DeValue::Table(table) => {
                let found = table.iter().find(|(name, _)| name.get_ref() == part);
                found.map(|(name, value)| (name.span(), value.get_ref()))
            }
            DeValue::Array(list) => {
                let found = part.parse::<usize>().ok().and_then(|index| list.get(index));
                found.map(|value| (value.span(), value.get_ref()))
            }
            _ => None,
        };
        let Some((span, inner)) = found else { break };
        (at, value) = (Some(span.start), inner);
    }
    let before = text.get(..at?)?;
    Some(before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_where_it_is_written_or_its_table_is() {
        let text = "default_target = 'a'\n\n[edge]\nlisten = 'b'\n[edge.tls]\ncert = 'c'\n[[allow]]\n[[allow]]\nprincipal = 'd'\n[targets.'a.b']\nttl = '1s'\n";
        for (key, line) in [
            (&["default_target"][..], Some(1)),
            (&["edge", "listen"], Some(4)),
            (&["edge", "tls", "cert"], Some(6)),
            (&["edge", "tls", "key"], Some(5)),
            (&["allow", "1", "principal"], Some(9)),
            (&["allow", "0", "targets"], Some(7)),
            (&["targets", "a.b", "ttl"], Some(11)),
            (&["listing", "ttl"], None),
        ] {
            let key: Vec<String> = key.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(of(text, &key), line, "{key:?}");
        }
    }
}
