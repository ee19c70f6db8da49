//! Reads the imports of the layers: a folder of `src` may use what is to its right in the picture of
//! docs/ARCHITECTURE.md, and what serves all.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What serves all layers.
const SHARED: [&str; 4] = ["config", "jsonrpc", "stream", "telemetry"];
/// Who calls is known to all who serve him; how he proved it, to `auth` and `http`.
const PRINCIPAL: &str = "auth::Principal";
/// Each layer, with what it may use besides itself and what serves all.
const LAYERS: [(&str, &[&str]); 6] = [
    ("http", &["auth", PRINCIPAL, "tenant", "session", "worker", "process", "shutdown"]),
    ("auth", &[]),
    ("tenant", &[PRINCIPAL, "session", "worker", "process"]),
    ("session", &[PRINCIPAL, "worker", "process"]),
    ("worker", &[PRINCIPAL, "process"]),
    ("process", &[]),
];
/// Each folder that serves all or stands aside, with all that it may use.
const OTHERS: [(&str, &[&str]); 5] =
    [("config", &[]), ("jsonrpc", &[]), ("stream", &["jsonrpc"]), ("telemetry", &["config"]), ("demo", &[])];

/// The folders that the files below `folder` name after `crate::`; [`PRINCIPAL`] for a principal alone.
fn imports(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(imports(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(text.split("crate::").skip(1).map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let name = &rest[..end];
                let is_principal = name == "auth" && rest[end..].starts_with("::Principal");
                (if is_principal { PRINCIPAL } else { name }).to_owned()
            }));
        }
    }
    found
}

#[test]
fn layers_import_to_the_right_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers = LAYERS.iter().map(|(layer, right)| (layer, [right, &SHARED[..]].concat()));
    let others = OTHERS.iter().map(|(folder, allowed)| (folder, allowed.to_vec()));
    for (folder, allowed) in layers.chain(others) {
        let found = imports(&src.join(folder));
        let wrong: Vec<_> = found
            .iter()
            .filter(|name| name.split("::").next() != Some(folder) && !allowed.contains(&name.as_str()))
            .collect();
        assert!(wrong.is_empty(), "src/{folder} imports {wrong:?}; docs/ARCHITECTURE.md says what it may");
    }
}
