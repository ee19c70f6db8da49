//! Paths and URIs. The input is three lines.
//!
//! A part of a resource is below it for every reader of URIs, and parts of parts are parts; a path of a request leads
//! to the server that it names; a sandbox opens no path that leads through what its server can change.
#![no_main]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sluice::fuzzing::{UntrustedPaths, endpoint, in_arguments, is_part_of, named_server, resource};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (one, two, three) = (next(), next(), next());
    for (whole, part) in [(one, two), (two, three), (one, three)] {
        parts(whole, part);
    }
    if is_part_of(two, one) && is_part_of(three, two) {
        assert!(is_part_of(three, one), "{three:?} is a part of {two:?}, and that of {one:?}");
    }
    request(one);
    sandboxed(one, two);
});

/// A part has the scheme and the authority of the whole, and its path, with all steps taken, stays below that of the
/// whole.
fn parts(whole: &str, part: &str) {
    assert!(is_part_of(whole, whole));
    if !is_part_of(part, whole) || part == whole {
        return;
    }
    let ((base, steps), (own_base, own_steps)) = (taken(whole), taken(part));
    assert_eq!(base, own_base, "{part:?} is a part of {whole:?}");
    let is_below = own_steps.starts_with(&steps) || own_steps.starts_with(&steps[..steps.len().saturating_sub(1)]);
    assert!(is_below, "{part:?} is a part of {whole:?}, and leads to {own_steps:?} and not below {steps:?}");
}

/// Scheme and authority of a URI, and the segments of its path when `.` and `..` are gone, as a reader sees them that
/// decodes first, or takes a backslash for a slash.
fn taken(uri: &str) -> (&str, Vec<String>) {
    let head = uri.split(['/', '?', '#']).next().unwrap_or_default();
    let scheme = head.find(':').map_or(0, |colon| colon + 1);
    let start = match uri[scheme..].strip_prefix("//") {
        Some(rest) => scheme + 2 + rest.find(['/', '?', '#']).unwrap_or(rest.len()),
        None => scheme,
    };
    let (base, path) = uri.split_at(start);
    let path = path.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let path = path.replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    let mut steps = Vec::new();
    for step in path.split(['/', '\\']) {
        match step {
            ".." => drop(steps.pop()),
            "." => {}
            step => steps.push(step.to_owned()),
        }
    }
    (base, steps)
}

fn request(path: &str) {
    let name = named_server(path);
    if let Some(found @ ("mcp" | "sse" | "messages")) = endpoint(path) {
        let plain = path.strip_suffix('/').unwrap_or(path);
        let expected = name.map_or_else(|| format!("/{found}"), |name| format!("/servers/{name}/{found}"));
        assert_eq!(plain, expected);
        assert!(name.is_none_or(|name| !name.is_empty() && !name.contains('/')));
        assert!(!resource(path).ends_with("messages"));
    }
    assert_eq!(name.is_some(), path.starts_with("/servers/"));
    assert!(!resource(path).ends_with('/'));
}

/// A tree with a folder `own` that the server may change, and links into it, out of it and round in a circle.
static TREE: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = std::env::temp_dir().canonicalize().unwrap().join(format!("sluice-fuzz-paths-{}", std::process::id()));
    for folder in ["own/below", "other/deep"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for (target, link) in [("../other", "own/out"), ("own", "in"), ("other", "link"), ("circle", "circle")] {
        symlink(target, root.join(link)).unwrap();
    }
    root
});

fn sandboxed(one: &str, two: &str) {
    if one.contains('\0') || two.contains('\0') {
        return;
    }
    let own = TREE.join("own");
    let untrusted = UntrustedPaths::default().with([own.clone()]);
    let path = TREE.join(one.trim_start_matches('/'));
    if let Some(found) = untrusted.resolve(&path) {
        assert!(found == own || !found.starts_with(&own), "{found:?} is the server's to change");
        if let Ok(real) = path.canonicalize() {
            assert_eq!(found, real);
        }
    }
    let arguments = [one.to_owned(), format!("--flag={two}"), two.to_owned()];
    for found in in_arguments(&arguments, Some(&TREE), &untrusted) {
        assert!(found != Path::new("/") && found.symlink_metadata().is_ok(), "{found:?}");
        assert!(found == own || !found.starts_with(&own), "{found:?} is the server's to change");
    }
}
