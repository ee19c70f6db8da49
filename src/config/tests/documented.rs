//! `config/sluice.toml` documents every key, truthfully, and works as it stands, as do the examples beside it.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::config::reading::Reading;
use crate::config::source::Source;
use crate::config::{ChildLimits, Http, Log, Sandbox, Sessions, load};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sluice.toml");

/// The shipped file with every commented key in force.
fn in_force() -> String {
    let shipped = std::fs::read_to_string(SHIPPED).unwrap();
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    shipped.lines().map(line).collect()
}

/// Reads a file whatever is wrong with it: the configuration, and every key that was asked for.
fn read(text: &str) -> (Config, BTreeSet<String>) {
    let files = Files::new();
    let environment = Environment::default();
    let (source, _) = Source::read(&files.write("sluice.toml", text), &environment).unwrap();
    let reading = Reading::new(&source, &environment, Vec::new());
    let config = load::read(&reading);
    (config, reading.known.into_inner())
}

/// Every key in a file, with dots; the entries of a list of tables count as [0], [1] and so on.
fn keys(table: &toml_edit::Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, item) in table {
        found.insert(key.to_owned());
        if let Some(table) = item.as_table() {
            found.extend(keys(table).into_iter().map(|below| format!("{key}.{below}")));
        }
        for (index, table) in item.as_array_of_tables().into_iter().flatten().enumerate() {
            found.extend(keys(table).into_iter().map(|below| format!("{key}[{index}].{below}")));
        }
    }
    found
}

#[test]
fn every_key_is_documented() {
    let text = in_force();
    let (_, known) = read(&text);
    let document = toml_edit::Document::parse(text).unwrap();
    let written = keys(document.as_table());
    assert!(known.len() > 60, "{known:?}");
    // The limits and the sandbox of one server are those of all: documented once.
    let is_repeated =
        |key: &str| ["servers.demo.limits.", "servers.demo.sandbox."].iter().any(|table| key.starts_with(table));
    let missing: Vec<_> = known.iter().filter(|key| !written.contains(*key) && !is_repeated(key)).collect();
    assert!(missing.is_empty(), "not in config/sluice.toml: {missing:?}");
}

#[test]
fn what_is_documented_as_default_is_the_default() {
    // What is marked as an example has no default to compare with.
    let mut text = String::new();
    let mut example = false;
    for line in std::fs::read_to_string(SHIPPED).unwrap().lines() {
        match line.strip_prefix('#') {
            _ if line.trim().is_empty() => example = false,
            Some(prose) if prose.starts_with(' ') => example |= prose.contains("Example;"),
            Some(key) if !example => text.push_str(key),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    for key in ["\nmax_depth = 128", "\nlisten = \"127.0.0.1:8081\"", "\nstderr_tail = 20"] {
        assert!(text.contains(key), "{key:?} is not in force in:\n{text}");
    }
    let config = valid(&text);
    let show = |value: &dyn std::fmt::Debug| format!("{value:?}");
    assert_eq!(show(&config.http), show(&Http::default()));
    assert_eq!(show(&config.log), show(&Log::default()));
    assert_eq!(show(&config.sessions), show(&Sessions::default()));
    assert_eq!(show(&config.servers["demo"].limits), show(&ChildLimits::default()));
    assert_eq!(config.servers["demo"].sandbox, Sandbox::default());
    let built_in = Config::for_servers([]);
    assert_eq!((config.admin, config.drain_timeout), (built_in.admin, built_in.drain_timeout));
}

#[test]
fn documented_jwt_defaults_are_the_defaults() {
    let explicit = in_force();
    let jwt = explicit.split("[auth.jwt]\n").nth(1).unwrap().split("\n# A tenant").next().unwrap();
    let without = |keys: &[&str]| -> String {
        let kept = jwt.lines().filter(|line| !keys.iter().any(|key| line.starts_with(&format!("{key} ="))));
        kept.map(|line| format!("{line}\n")).collect()
    };
    let sources = ["secret", "secret_file", "pem_file", "jwks_file"];
    let defaulted = ["leeway", "tenant_claim", "subject_claim", "scope_claim", "required_scopes"];
    let show = |jwt: &str| {
        format!("{:?}", valid(&format!("[auth.jwt]\n{jwt}[tenants.a]\n[servers.s]\ncommand='sh'\n")).auth.jwt)
    };
    assert!(defaulted.iter().all(|key| jwt.contains(&format!("\n{key} ="))));
    assert_eq!(show(&without(&sources)), show(&without(&[sources.as_slice(), &defaulted].concat())));
}

#[test]
fn the_shipped_files_are_valid() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
    let environment = environment(&[("HOME", "/home/someone"), ("PATH", "/usr/bin:/bin")]);
    let loaded = Config::load(Path::new(SHIPPED), &Environment::default()).unwrap();
    assert_eq!(loaded.warnings, []);
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let loaded = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Config::load(&path, &environment),
            Some("json") => Config::from_mcp_servers(&path, &environment),
            _ => continue,
        };
        seen += 1;
        loaded.unwrap_or_else(|problems| panic!("{problems}"));
    }
    assert!(seen >= 3, "{seen} examples");
}
