//! The shape of the source: a folder is a layer, and imports only from the layers that the data path reaches after it.

mod graph;
mod kept_bytes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use graph::Graph;

/// The data path. A layer may import from those after it.
const PATH: [&str; 8] = ["http", "auth", "tenant", "session", "bridge", "pool", "worker", "process"];
/// Serve all layers.
const COMMON: [&str; 9] = ["jsonrpc", "mcp", "stream", "config", "permits", "telemetry", "text", "heavy", "memory"];
/// Who calls: the one word that the layers after `auth`, and `permits`, need of it.
const PRINCIPAL: &str = "auth::Principal";
/// Most lines of a file, its tests not counted.
const LONGEST: usize = 420;

/// What the modules outside of the data path may import.
fn others() -> BTreeMap<&'static str, Vec<&'static str>> {
    let everything: Vec<&str> = PATH.into_iter().chain(COMMON).chain(["shutdown"]).collect();
    BTreeMap::from([
        ("jsonrpc", vec!["memory"]),
        ("mcp", vec!["jsonrpc"]),
        ("stream", vec!["jsonrpc", "memory"]),
        ("memory", vec![]),
        ("text", vec![]),
        ("heavy", vec![]),
        ("config", vec!["text", "memory"]),
        ("permits", vec!["config"]),
        ("telemetry", vec!["config", "text"]),
        ("shutdown", vec![]),
        ("demo", vec!["mcp"]),
        ("gateway", everything.clone()),
        ("cli", everything.iter().copied().chain(["gateway", "demo"]).collect()),
        // Shows the fuzz targets what is private.
        ("fuzzing", everything.into_iter().chain(["cli"]).collect()),
        ("main", vec!["cli"]),
        ("lib", vec![]),
    ])
}

/// Whether `layer` may import `path`, such as `auth::Principal`.
fn may_import(layer: &str, path: &str) -> bool {
    let to = path.split("::").next().unwrap_or(path);
    if to == layer {
        return true;
    }
    let place = |name: &str| PATH.iter().position(|layer| *layer == name);
    match place(layer) {
        Some(from) => {
            // The listener needs to know when to stop listening.
            let is_listener = layer == "http" && to == "shutdown";
            COMMON.contains(&to) || path == PRINCIPAL || is_listener || place(to).is_some_and(|to| to > from)
        }
        None if layer == "permits" && path == PRINCIPAL => true,
        None => others().get(layer).unwrap_or_else(|| panic!("src/{layer} is not in the table")).contains(&to),
    }
}

/// All source files, and the layer that each belongs to.
fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let layer = inside.with_extension("").components().next().unwrap().as_os_str().to_string_lossy().into();
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((inside.to_owned(), layer, text));
            }
        }
    }
    files
}

/// What a text imports of the crate, two segments at most: `crate::a::b` and `crate::{a::b, c}`, or `sluice::…`.
fn imports(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for root in ["crate::", "sluice::"] {
        for (at, _) in code.match_indices(root) {
            // Neither the end of a longer name, nor the name of a log target.
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '"') {
                continue;
            }
            let rest = &code[at + root.len()..];
            if rest.starts_with('{') {
                found.extend(group(rest));
            } else {
                found.push(segments(rest));
            }
        }
    }
    found
}

/// The first two segments of a path; with a group in the second place, the first alone.
fn segments(path: &str) -> String {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(path.len());
    path[..end].split("::").filter(|segment| !segment.is_empty()).take(2).collect::<Vec<_>>().join("::")
}

/// The items of a group `{a::b, c::{d, e}}`.
fn group(text: &str) -> Vec<String> {
    let (mut depth, mut items, mut start) = (0, Vec::new(), 1);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => {
                items.push(&text[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 1 => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.into_iter().map(|item| segments(item.trim())).filter(|item| !item.is_empty()).collect()
}

#[test]
fn a_layer_imports_only_from_those_after_it() {
    let files = sources();
    assert!(files.len() > 50, "the source has been found");
    let mut wrong = Vec::new();
    for (file, layer, text) in &files {
        let imports = imports(text).into_iter().filter(|import| !may_import(layer, import));
        wrong.extend(imports.map(|import| format!("src/{} imports {import}", file.display())));
        // No way round: out of its folder, a module is named from the root. Inside a test module there is one step
        // more.
        let steps = file.components().count() + usize::from(text.contains("\nmod tests {"));
        if layer != "lib" && layer != "main" && text.contains(&"super::".repeat(steps + 1)) {
            wrong.push(format!("src/{} leaves its layer by super::", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut long = Vec::new();
    // A file of tests may be as long as its cases are many.
    for (file, _, text) in
        sources().into_iter().filter(|(file, ..)| !file.components().any(|part| part.as_os_str() == "tests"))
    {
        let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count();
        if lines > LONGEST {
            long.push(format!("src/{} has {lines} lines, and may have {LONGEST}", file.display()));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// What the tables of calls may import of the crate, besides themselves (by their whole path where they are in a folder
/// of their own). Of telemetry the one word for why a message is dropped.
const TABLES_IMPORT: [&str; 6] = ["jsonrpc", "mcp", "memory", "stream", "telemetry::DropReason", "worker::calls"];
/// What would give the tables of calls a clock, a task, a lock or I/O of their own.
const IMPURE: [&str; 7] = ["async ", "Instant::now", "SystemTime", "tokio::sync", "parking_lot", "std::fs", "std::net"];

#[test]
fn the_tables_of_calls_are_pure() {
    let mut wrong = Vec::new();
    for (file, _, text) in sources() {
        let is_test = file.components().any(|part| part.as_os_str() == "tests");
        if is_test || !file.starts_with("worker/calls") {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let code = code.replace("pub(in crate::worker)", "pub").replace("pub(in crate::worker::calls)", "pub");
        let may = |path: &String| TABLES_IMPORT.iter().any(|may| path == may || path.starts_with(&format!("{may}::")));
        let imports = imports(&code).into_iter().filter(|path| !may(path));
        wrong.extend(imports.map(|path| format!("src/{} imports {path}", file.display())));
        let impure = IMPURE.iter().filter(|word| code.contains(**word));
        wrong.extend(impure.map(|word| format!("src/{} has {word}", file.display())));
        // No way out of the folder either.
        if code.contains("super::super::") {
            wrong.push(format!("src/{} leaves the tables by super::", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Most fields of a struct outside of the configuration.
const MOST_FIELDS: usize = 15;
/// Most files that the inherent `impl` blocks of a type stand in.
const MOST_FILES: usize = 2;
/// What breaks the rules still, by layer. A number may only become smaller.
const WIDE: [(&str, usize); 0] = [];
const SCATTERED: [(&str, usize); 0] = [];

/// Asserts that a rule is broken nowhere but where it is known to be.
fn assert_broken_by<'a>(offenders: impl IntoIterator<Item = (&'a str, String)>, known: &[(&str, usize)]) {
    let mut by_layer: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    offenders.into_iter().for_each(|(layer, what)| by_layer.entry(layer).or_default().push(what));
    let most = |layer: &str| known.iter().find(|(known, _)| *known == layer).map_or(0, |(_, most)| *most);
    by_layer.retain(|layer, offenders| offenders.len() > most(layer));
    assert!(by_layer.is_empty(), "{by_layer:#?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let graph = Graph::read(sources.iter().map(|(path, _, text)| (path.as_path(), text.as_str())));
    let circles = graph.in_circles();
    assert_broken_by(circles.into_iter().map(|path| (layer_of(path), path.to_owned())), &[]);
}

#[test]
fn no_struct_has_more_fields_than_one_can_keep_in_mind() {
    let sources = sources();
    let graph = Graph::read(sources.iter().map(|(path, _, text)| (path.as_path(), text.as_str())));
    let structs =
        graph.0.values().flat_map(|file| graph::structs(&file.code).into_iter().map(move |found| (file, found)));
    let wide = structs.filter(|(_, (_, fields))| *fields > MOST_FIELDS).map(|(file, (name, fields))| {
        (layer_of(&file.path), format!("{name} in src/{} has {fields} fields", file.path))
    });
    assert_broken_by(wide.filter(|(layer, _)| *layer != "config"), &WIDE);
}

#[test]
fn what_a_type_does_stands_in_two_files_at_most() {
    let sources = sources();
    let graph = Graph::read(sources.iter().map(|(path, _, text)| (path.as_path(), text.as_str())));
    let mut files: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for (module, file) in &graph.0 {
        for name in graph::implemented(&file.code) {
            files.entry((graph.definition(module, name), name)).or_default().insert(&file.path);
        }
    }
    let scattered = files.iter().filter(|(_, files)| files.len() > MOST_FILES);
    let scattered = scattered.map(|((module, name), files)| (module[0].as_str(), format!("{name}: {files:?}")));
    assert_broken_by(scattered, &SCATTERED);
}

#[test]
fn a_circle_is_found_through_a_parent_that_re_exports() {
    let sources = [
        ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\n"),
        ("a/b.rs", "use super::c::C;\npub struct B;\nimpl B {}\n"),
        ("a/c.rs", "pub struct C(crate::a::B);\nimpl super::B {}\n"),
        ("d.rs", "use crate::a::{B};\n// use crate::e::E;\n"),
        ("e.rs", "use crate::d::{self, D as Other};\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n"),
    ];
    let graph = Graph::read(sources.iter().map(|(path, text)| (Path::new(path), *text)));
    assert_eq!(graph.in_circles().into_iter().collect::<Vec<_>>(), ["a/b.rs", "a/c.rs"]);
    let code = "pub struct Wide<T> {\n    pub(crate) one: T,\n    two: Vec<(u8, u8)>,\n}\nstruct Tuple(u8);\nimpl<T: A> Wide<T> {\n}\nimpl A for B {}\n";
    assert_eq!(graph::structs(code), [("Wide", 2)]);
    assert_eq!(graph::implemented(code), ["Wide"]);
}

/// The layer of a file.
fn layer_of(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap_or(path)
}

#[test]
fn the_rules_catch_what_they_are_for() {
    let text = "use crate::{auth::Principal, http::{App, x}};\nuse crate::session::Session; // crate::no::no\npub(crate) fn a() -> crate::worker::Worker {}";
    let expected = ["auth::Principal", "http", "session::Session", "worker::Worker"];
    assert_eq!(imports(text), expected);
    assert!(may_import("session", "auth::Principal") && !may_import("session", "auth::Authenticator"));
    assert!(may_import("http", "session::Session") && !may_import("session", "http::App"));
    assert!(may_import("worker", "process::Child") && !may_import("process", "worker::Worker"));
    assert!(!may_import("jsonrpc", "config::Config") && !may_import("demo", "jsonrpc::parse"));
}
