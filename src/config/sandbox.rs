//! Reads `sandbox`, for all servers and for each: one word, or a table with a `mode` and what is allowed beside it.
//! Every path and every user in it exists, and nothing in it contradicts itself.

use std::path::PathBuf;

use super::accounts;
use super::model::{Account, Allowance, Sandbox, SandboxMode};
use super::section::Section;

const MODES: [(&str, SandboxMode); 3] =
    [("none", SandboxMode::None), ("standard", SandboxMode::Standard), ("strict", SandboxMode::Strict)];
const ALLOWANCES: [(&str, Allowance); 5] = [
    ("namespaces", Allowance::Namespaces),
    ("debug", Allowance::Debug),
    ("io_uring", Allowance::IoUring),
    ("shared_memory", Allowance::SharedMemory),
    ("unix_sockets", Allowance::UnixSockets),
];

/// Reads `sandbox` and `require_sandbox` of a table; what is not there is as in `default`.
pub(super) fn read(parent: &mut Section<'_>, default: &Sandbox) -> Sandbox {
    let required = parent.flag("require_sandbox");
    let mut sandbox = if parent.is_text("sandbox") {
        Sandbox { mode: parent.choice("sandbox", default.mode, &MODES), ..default.clone() }
    } else {
        table(parent.section("sandbox"), default)
    };
    if sandbox.mode == SandboxMode::None {
        // What the default allows beside its mode has no meaning here.
        sandbox = Sandbox { mode: SandboxMode::None, account: sandbox.account, ..Sandbox::default() };
        if required == Some(true) {
            parent.problem("require_sandbox", "there is none to require: sandbox is \"none\"; change one of the two");
        }
        return sandbox;
    }
    sandbox.required = required.unwrap_or(default.required);
    sandbox
}

fn table(mut section: Section<'_>, default: &Sandbox) -> Sandbox {
    let s = &mut section;
    let mode = s.choice("mode", default.mode, &MODES);
    let network = s.flag("network").or(default.network);
    let read = paths(s, "read").unwrap_or_else(|| default.read.clone());
    let write = paths(s, "write").unwrap_or_else(|| default.write.clone());
    let allow = allowances(s).unwrap_or_else(|| default.allow.clone());
    let account = account(s).or_else(|| default.account.clone());
    if mode == SandboxMode::None {
        for key in ["network", "read", "write", "allow"] {
            if s.has(key) {
                s.problem(key, "has no effect: mode is \"none\"; remove it, or choose another mode");
            }
        }
    }
    section.finish();
    Sandbox { mode, required: default.required, network, read, write, allow, account }
}

fn paths(s: &mut Section<'_>, key: &str) -> Option<Vec<PathBuf>> {
    let texts = s.optional_strings(key)?;
    let mut paths = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let place = s.path.key(key).index(index);
        let path = s.reading.source.folder().join(text);
        match path.symlink_metadata().and_then(|_| path.canonicalize()) {
            Ok(path) if path.parent().is_none() => {
                s.reading.problem(&place, "is everything; name what the server needs, or choose mode = \"none\"");
            }
            Ok(_) => paths.push(path),
            Err(error) => {
                let text = format!("{} cannot be used: {error}; make it or correct the path", path.display());
                s.reading.problem(&place, text);
            }
        }
    }
    Some(paths)
}

fn allowances(s: &mut Section<'_>) -> Option<Vec<Allowance>> {
    let words = s.optional_strings("allow")?;
    let known = |word: &str| ALLOWANCES.iter().find(|(name, _)| *name == word).map(|(_, allowance)| *allowance);
    for (index, word) in words.iter().enumerate().filter(|(_, word)| known(word).is_none()) {
        let names: Vec<_> = ALLOWANCES.iter().map(|(name, _)| format!("{name:?}")).collect();
        let text = format!("{word:?} is none of {}; use one of them", names.join(", "));
        s.reading.problem(&s.path.key("allow").index(index), text);
    }
    Some(words.iter().filter_map(|word| known(word)).collect())
}

fn account(s: &mut Section<'_>) -> Option<Account> {
    let (user, group) = (s.nonempty("user"), s.nonempty("group"));
    let Some(user) = user else {
        if group.is_some() {
            s.problem("group", "a group without a user; give the user too");
        }
        return None;
    };
    let account = accounts::find(&user, group.as_deref()).map_err(|(key, text)| s.problem(key, text)).ok()?;
    if !rustix::process::geteuid().is_root() {
        s.problem("user", "only root can start a server as another user; start the gateway as root, or remove it");
    }
    Some(account)
}
