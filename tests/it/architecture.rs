//! Who may use whom: the layers of ARCHITECTURE.md, held against what the code names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::support::root;

/// A module, and the modules of this crate that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("accept", &[]),
    ("access", &[]),
    ("display", &[]),
    ("model", &[]),
    ("pem", &[]),
    ("proto", &[]),
    ("upstream", &["display", "model", "pem", "proto"]),
    ("listing", &["display", "model", "upstream"]),
    ("grpc", &["access", "model"]),
    ("reflection", &["grpc"]),
    ("service", &["access", "grpc", "listing", "model", "proto", "upstream"]),
    ("edge", &["accept", "access", "display", "grpc", "model", "pem"]),
    ("telemetry", &["display"]),
    ("admin", &["accept", "access"]),
    ("simulator", &["accept"]),
    ("config", &["access", "admin", "display", "edge", "listing", "model", "service", "telemetry", "upstream"]),
    (
        "app",
        &[
            "access",
            "admin",
            "config",
            "display",
            "edge",
            "grpc",
            "listing",
            "model",
            "proto",
            "reflection",
            "service",
            "upstream",
        ],
    ),
    ("cli", &["admin", "app", "config", "display", "edge", "pem", "proto", "simulator", "telemetry"]),
];

/// A name from outside, and the modules that may know it.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("aws_sdk_ssm", &["upstream"]),
    ("aws_sdk_sts", &["upstream"]),
    ("aws_config", &["upstream"]),
    ("aws_smithy", &["upstream"]),
    ("tonic::Status", &["grpc", "reflection", "service", "edge", "app", "cli"]),
    ("axum", &["admin", "simulator"]),
    ("opentelemetry", &["edge", "listing", "telemetry"]),
    ("prometheus", &["app", "edge", "listing"]),
    ("tokio_rustls", &["cli", "edge", "upstream"]),
    ("jsonwebtoken", &["edge"]),
];

fn sources() -> Vec<PathBuf> {
    fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let mut sources = Vec::new();
    collect(&root().join("src"), &mut sources);
    sources
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let path = path.strip_prefix(root().join("src")).unwrap();
    path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The code of a file as one line, without comments and without its tests.
fn code(path: &Path) -> String {
    if path.iter().any(|part| part == "tests.rs" || part == "tests") {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap().trim()).collect::<Vec<_>>().join(" ")
}

/// The modules named as `crate::name`, or within `crate::{…}`.
fn uses(code: &str) -> BTreeSet<String> {
    let word =
        |text: &str| text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect::<String>();
    let mut uses = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            uses.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for letter in group.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => uses.extend([word(std::mem::take(&mut item).trim())]),
                _ if depth == 0 => item.push(letter),
                _ => {}
            }
        }
        uses.insert(word(item.trim()));
    }
    uses.remove("");
    uses
}

#[test]
fn modules_use_only_those_below_them() {
    for path in sources() {
        let module = module(&path);
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} is new"));
        for used in uses(&code(&path)) {
            assert!(used == module || allowed.contains(&&*used), "{} uses {used}", path.display());
        }
    }
}

#[test]
fn names_from_outside_stay_where_they_belong() {
    for path in sources() {
        let (module, code) = (module(&path), code(&path));
        for (name, allowed) in OUTSIDE {
            let (krate, item) = name.split_once("::").unwrap_or((name, ""));
            let is_named = code.contains(name)
                || (!item.is_empty()
                    && code.split(&format!("use {krate}::{{")).skip(1).any(|group| {
                        group.split(';').next().unwrap().split([',', '{', '}', ' ']).any(|word| word == item)
                    }));
            assert!(!is_named || allowed.contains(&&*module), "{} names {name}", path.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_four_hundred_lines() {
    for path in sources() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let found = uses("use crate::{model::{Query, Filters}, proto}; let x = crate::upstream::Ssm;");
    assert_eq!(found, ["model", "proto", "upstream"].map(str::to_owned).into());
}
