//! The configuration of the gateway that is attacked.

use std::fmt::Write as _;
use std::path::Path;

use crate::arguments::Arguments;

/// The key of the tenant that is measured.
pub(crate) const VICTIMS_KEY: &str = "slk_victim_a-key-for-the-table-of-neighbours";
/// The key of the tenant that attacks.
pub(crate) const HOSTILE_KEY: &str = "slk_hostile_another-key-for-the-table-of-neighbours";
/// Connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// Children of the servers that the two tenants share out: fewer than the attacker asks for.
const FEW: usize = 12;

/// Servers and what the fixture does in each.
const SERVERS: [(&str, &[&str]); 13] = [
    ("echo", &["echo"]),
    ("hostile", &["echo"]),
    ("noise", &["spew", "noise"]),
    ("answers", &["spew", "answers"]),
    ("blank", &["spew", "blank"]),
    ("endless", &["spew", "endless"]),
    ("stderr", &["spew", "stderr"]),
    ("long-stderr", &["spew", "long-stderr"]),
    ("notifications", &["spew", "notifications"]),
    ("slow", &["slow-start", "2000"]),
    ("silent", &["never-initialize"]),
    ("exits", &["exit", "1"]),
    ("flood", &["flood", "1000000"]),
];

/// The configuration. `state` is the state directory.
pub(crate) fn text(arguments: &Arguments, state: Option<&Path>) -> String {
    let mut text = String::new();
    if let Some(state) = state {
        line(&mut text, format_args!("state_dir = {state:?}"));
    }
    line(&mut text, format_args!("http.listen = \"127.0.0.1:0\"\nhttp.max_connections = {MAX_CONNECTIONS}"));
    line(&mut text, format_args!("admin.listen = \"127.0.0.1:0\"\nshutdown.drain_timeout = \"1s\""));
    line(&mut text, format_args!("limits.stdin_grace = \"200ms\"\nlimits.term_grace = \"200ms\""));
    // On a small disk a child may have less than there is: that is what the limits are for.
    let (size, files) = if state.is_some() { ("temp_size = \"2MiB\"\nlimits.", 400) } else { ("", 2_000_000) };
    line(&mut text, format_args!("limits.{size}temp_files = {files}\n[tenants.victim]\n[tenants.hostile]"));
    if arguments.cgroups.is_some() {
        line(&mut text, format_args!("limits.cpu = 0.5"));
    }
    for (key, tenant) in [(VICTIMS_KEY, "victim"), (HOSTILE_KEY, "hostile")] {
        let Ok(id) = tenant.parse() else { continue };
        let entry = sluice::config::ApiKey::from_plain(key, id, tenant.to_owned(), Vec::new());
        let sha256 = entry.sha256.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        line(&mut text, format_args!("[[auth.keys]]\nprefix = {tenant:?}\nsha256 = {sha256:?}\ntenant = {tenant:?}"));
    }
    for (name, mode) in SERVERS {
        server(&mut text, arguments, name, mode);
    }
    server(&mut text, arguments, "few", &["echo"]);
    line(&mut text, format_args!("pool.max_children = {FEW}"));
    server(&mut text, arguments, "shared", &["echo"]);
    line(&mut text, format_args!("isolation = \"shared\"\npool.max_children = {FEW}"));
    text
}

fn server(text: &mut String, arguments: &Arguments, name: &str, mode: &[&str]) {
    line(text, format_args!("[servers.{name}]\ncommand = {:?}\nargs = {mode:?}", arguments.fixture));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // A String takes whatever is written.
    let _ = writeln!(text, "{line}");
}
