//! Who may use whom: the layers of ARCHITECTURE.md, held against what the code names.

mod sources;

use self::sources::Sources;
use crate::support::root;

/// A module, and the modules of this crate that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("accept", &[]),
    ("access", &[]),
    ("clock", &[]),
    ("display", &[]),
    ("model", &[]),
    ("pem", &[]),
    ("proto", &[]),
    ("setting", &[]),
    ("source", &["display", "model"]),
    ("aws", &["clock", "display", "model", "pem", "proto", "setting", "source"]),
    ("read", &["display", "model", "setting", "source"]),
    ("grpc", &["access", "model"]),
    ("reflection", &["grpc"]),
    ("service", &["access", "grpc", "model", "proto", "read", "setting", "source"]),
    ("edge", &["accept", "access", "clock", "display", "grpc", "pem", "setting"]),
    ("telemetry", &["display", "setting"]),
    ("admin", &["accept", "access"]),
    ("simulator", &["accept"]),
    ("config", &["access", "admin", "aws", "display", "edge", "model", "read", "service", "setting", "telemetry"]),
    (
        "app",
        &[
            "access",
            "admin",
            "aws",
            "clock",
            "config",
            "display",
            "edge",
            "grpc",
            "model",
            "proto",
            "read",
            "reflection",
            "service",
            "source",
        ],
    ),
    ("cli", &["admin", "app", "config", "display", "edge", "pem", "proto", "simulator", "telemetry"]),
];

/// A name from outside, and the modules that may know it.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("aws_sdk_ssm", &["aws"]),
    ("aws_sdk_sts", &["aws"]),
    ("aws_config", &["aws"]),
    ("aws_smithy", &["aws"]),
    ("tonic::Status", &["grpc", "cli"]),
    ("axum", &["admin", "simulator"]),
    ("opentelemetry", &["edge", "source", "telemetry"]),
    ("prometheus", &["app", "edge", "read"]),
    ("tokio_rustls", &["aws", "cli", "edge"]),
    ("jsonwebtoken", &["edge"]),
];

/// A folder within a module, and the folders of the module that its files may use. The files right in the module are
/// `MODULE/`.
const MAY_USE_WITHIN: &[(&str, &[&str])] = &[
    ("edge/", &[]),
    ("edge/identity", &["edge/"]),
    ("edge/transport", &["edge/", "edge/identity"]),
    ("edge/layers", &["edge/", "edge/identity"]),
    ("read/", &[]),
    ("read/listing", &["read/"]),
];

fn sources() -> Sources {
    Sources::read(&root().join("src"))
}

/// The top-level module that a file belongs to.
fn top(module: &str) -> &str {
    module.split('/').next().unwrap()
}

/// The folder within its top-level module that a file belongs to; none for the file of the top-level module itself,
/// which names what the others make public.
fn folder(module: &str) -> Option<String> {
    let (top, rest) = module.split_once('/')?;
    let divided = |folder: &str| MAY_USE_WITHIN.iter().any(|(name, _)| *name == folder);
    let folder = format!("{top}/{}", rest.split('/').next().unwrap());
    Some(if divided(&folder) { folder } else { format!("{top}/") }).filter(|folder| divided(folder))
}

fn allowed<'a>(rules: &[(&str, &'a [&'a str])], name: &str) -> &'a [&'a str] {
    rules.iter().find(|(ruled, _)| *ruled == name).unwrap_or_else(|| panic!("{name} is new")).1
}

#[test]
fn modules_use_only_those_below_them() {
    let sources = sources();
    for (module, _) in sources.iter().filter(|(module, _)| !module.is_empty()) {
        let may_use = allowed(MAY_USE, top(module));
        for used in sources.used_by(module) {
            assert!(top(used) == top(module) || may_use.contains(&top(used)), "{module} uses {used}");
        }
    }
}

#[test]
fn folders_within_a_module_use_only_those_below_them() {
    let sources = sources();
    for (module, _) in sources.iter() {
        let Some(own) = folder(module) else { continue };
        for used in sources.used_by(module).into_iter().filter(|used| top(used) == top(module)) {
            let theirs = folder(used).unwrap_or_else(|| panic!("{module} uses {used}, which has it all"));
            assert!(theirs == own || allowed(MAY_USE_WITHIN, &own).contains(&&*theirs), "{module} uses {used}");
        }
    }
}

#[test]
fn no_two_files_use_each_other() {
    assert_eq!(sources().circles(), [].into());
}

#[test]
fn names_from_outside_stay_where_they_belong() {
    for (module, file) in sources().iter() {
        for (name, allowed) in OUTSIDE {
            let (krate, item) = name.split_once("::").unwrap_or((name, ""));
            let is_named = file.all.contains(name)
                || (!item.is_empty()
                    && file.all.split(&format!("use {krate}::{{")).skip(1).any(|group| {
                        group.split(';').next().unwrap().split([',', '{', '}', ' ']).any(|word| word == item)
                    }));
            assert!(!is_named || allowed.contains(&top(module)), "{module} names {name}");
        }
    }
}

#[test]
fn no_file_is_longer_than_four_hundred_lines() {
    for (path, text) in sources::files(&root().join("src")) {
        let lines = text.lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let sources = Sources::of(&[
        ("", "pub mod a; pub mod b;"),
        ("a", "use crate::b::{Deep, deep::{self, Other}};\nfn f() { a1::go(); }"),
        ("a/a1", "use super::super::b;\nfn go() -> b::Deep { crate::b::deep::new() } // crate::a::Nothing"),
        ("b", "pub use self::deep::Deep;\npub(crate) use crate::a::Unused as Renamed;\nstruct B;"),
        ("b/deep", "use super::B;\nuse std::fmt;\n#[cfg(test)]\nmod tests { use crate::a; }"),
        ("c", "use crate::c::d::{\n    E,\n};"),
        ("c/d", "fn d() { super::c(); }"),
    ]);
    assert_eq!(sources.used_by("a"), ["a/a1", "b/deep"].into());
    assert_eq!(sources.used_by("a/a1"), ["b/deep"].into());
    assert_eq!(sources.used_by("b"), [].into());
    assert_eq!(sources.used_by("b/deep"), ["b"].into());
    assert_eq!(sources.circles(), [vec!["c", "c/d"]].into());
}
