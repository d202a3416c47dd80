//! CONFIGURATION.md, held against what the program takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    process::Command,
};

use ssm_gateway::config::Config;

use crate::{
    program::SSM_GATEWAY,
    support::{root, run},
};

/// A row: the key, and its default where it is one that could be written.
type Row = (String, Option<String>);

fn reference() -> String {
    fs::read_to_string(root().join("CONFIGURATION.md")).unwrap()
}

/// The rows of each table, by the table as TOML writes it; the top level has an empty one.
fn rows() -> BTreeMap<String, Vec<Row>> {
    let (mut tables, mut table) = (BTreeMap::<String, Vec<Row>>::new(), String::new());
    for line in reference().lines().take_while(|line| *line != "## Flags and variables") {
        if let Some(heading) = line.strip_prefix("## ") {
            table = if heading == "Top level" { String::new() } else { heading.trim_matches('`').to_owned() };
        }
        let Some(row) = line.strip_prefix("| ") else { continue };
        let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        if let [key, kind, default, what] = cells[..]
            && let Some(key) = key.strip_prefix('`')
        {
            assert!(!kind.is_empty() && !what.is_empty(), "{line}");
            let value = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
            let value = value.filter(|value| {
                value.parse::<toml::Value>().is_ok() || toml::from_str::<toml::Table>(&format!("a = {value}")).is_ok()
            });
            tables
                .entry(table.clone())
                .or_default()
                .push((key.trim_end_matches('`').to_owned(), value.map(str::to_owned)));
        }
    }
    tables
}

/// The keys that a table takes, by what it says of one that it does not.
fn known(table: &str) -> BTreeSet<String> {
    let error = toml::from_str::<Config>(&format!("{table}\n'no such key' = 1\n")).unwrap_err();
    let message = error.message();
    assert!(message.contains("no such key"), "{message}");
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_reference_names_every_key_and_no_other() {
    let tables = rows();
    for (table, rows) in &tables {
        let mut named: BTreeSet<String> = rows.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(named.len(), rows.len(), "{table} names a key twice");
        // Tables within tables have their own headings.
        let within = tables.keys().filter_map(|other| {
            let path = other.trim_matches(['[', ']']);
            let outer = table.trim_matches(['[', ']']);
            let inner = if outer.is_empty() { path } else { path.strip_prefix(outer)?.strip_prefix('.')? };
            inner.split('.').next().filter(|inner| !inner.is_empty())
        });
        named.extend(within.map(str::to_owned));
        assert_eq!(named, known(table), "{table}");
    }
    assert_eq!(tables.len(), 15);
}

#[test]
fn the_reference_has_every_default_right() {
    let mut written = String::new();
    for (table, rows) in rows() {
        let is_default =
            |table: &str| !table.starts_with("[[") && !["[edge.tls]", "[auth.jwt]", "[targets.NAME]"].contains(&table);
        if is_default(&table) {
            writeln!(written, "{table}").unwrap();
            for (key, value) in rows.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                writeln!(written, "{key} = {value}").unwrap();
            }
        }
    }
    let default = format!("{:#?}", Config::default());
    assert_eq!(format!("{:#?}", toml::from_str::<Config>(&written).unwrap()), default);
    // And what is not absent by default is there.
    for name in default.lines().filter_map(|line| line.split_once(": ").filter(|(_, value)| *value != "None,")) {
        assert!(
            written.contains(name.0.trim()) || ["targets", "allow", "simulated_credentials"].contains(&name.0.trim()),
            "{name:?}"
        );
    }
}

#[test]
fn the_reference_names_every_flag_and_variable() {
    let (help, reference) = (run(Command::new(SSM_GATEWAY).args(["serve", "--help"])), reference());
    let flags = help.lines().filter_map(|line| line.trim().strip_prefix("--"));
    let variables = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap());
    let flags = flags.map(|flag| format!("`--{}`", flag.split([' ', '[']).next().unwrap()));
    let mut count = 0;
    for name in flags.chain(variables.map(|variable| format!("`{variable}`"))) {
        assert!(reference.contains(&name), "{name}");
        count += 1;
    }
    assert_eq!(count, 2 * 11);
}

#[test]
fn the_modules_that_the_documents_name_for_the_log_exist() {
    let mut count = 0;
    for document in ["CONFIGURATION.md", "OPERATIONS.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for rest in text.split("ssm_gateway::").skip(1) {
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter)).unwrap();
            let module = root().join("src").join(rest[..end].replace("::", "/")).with_extension("rs");
            assert!(module.is_file(), "{document} names {}", module.display());
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn the_readmes_examples_are_configurations() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut count = 0;
    for example in readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let config: Config = toml::from_str(example).unwrap();
        Config::load(None, |loaded| *loaded = config).unwrap();
        count += 1;
    }
    assert_eq!(count, 2);
}
