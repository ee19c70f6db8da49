//! What can be said about the sandbox and the machine, and what cannot.

use super::*;
use crate::config::{Allowance, SandboxMode, SandboxOpen};

/// A file with this in front of and after the server's own table.
fn file(root: &str, server: &str) -> String {
    format!("{root}\n[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='sh'\n{server}\n")
}

#[track_caller]
fn sandbox(root: &str, server: &str) -> crate::config::Sandbox {
    valid(&file(root, server)).servers["s"].sandbox.clone()
}

/// Every problem as `key: text`.
#[track_caller]
fn problems(root: &str, server: &str) -> Vec<String> {
    let Err(problems) = load(&file(root, server)) else { panic!("was taken as valid") };
    problems.list().iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect()
}

#[test]
fn a_word_or_a_table_for_all_and_for_each() {
    assert_eq!(sandbox("", ""), crate::config::Sandbox::default());
    assert_eq!(sandbox("sandbox='strict'", "").mode, SandboxMode::Strict);
    assert_eq!(sandbox("sandbox='strict'", "sandbox='none'").mode, SandboxMode::None);
    let all = "require_sandbox=true\n[sandbox]\nmode='standard'\nread=['.']\nallow=['debug','io_uring']";
    let one = sandbox(all, "[servers.s.sandbox]\nmode='strict'\nallow=['namespaces']\nnetwork=true");
    assert_eq!((one.mode, one.required, one.has_network()), (SandboxMode::Strict, true, true));
    assert_eq!((one.read.len(), one.allow), (1, vec![Allowance::Namespaces]));
    assert!(!sandbox(all, "require_sandbox=false").required);
    assert_eq!(sandbox("[sandbox]\nopen='listed'", "sandbox='strict'").open, SandboxOpen::Listed);
    assert_eq!(sandbox("[sandbox]\nopen='listed'", "[servers.s.sandbox]\nopen='inferred'").open, SandboxOpen::Inferred);
    assert!(sandbox("", "").has_network() && !sandbox("", "sandbox='strict'").has_network());
}

#[test]
fn what_does_not_exist_or_contradicts_itself_is_a_problem() {
    let found = problems(
        "sandbox='loose'",
        "[servers.s.sandbox]\nmode='standard'\nread=['/nonexistent','/']\nwrite=[1]\nallow=['all']\nmod='x'",
    );
    for part in [
        "sandbox: \"loose\" is none of",
        "servers.s.sandbox.read[0]: /nonexistent cannot be used",
        "servers.s.sandbox.read[1]: is everything",
        "servers.s.sandbox.write[0]: a number where a text belongs",
        "servers.s.sandbox.allow[0]: \"all\" is none of",
        "servers.s.sandbox.mod: unknown key (did you mean \"mode\"?)",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(part)), "{part:?} is not in {found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
    let found = problems("", "require_sandbox=true\nsandbox='none'");
    assert!(found[0].starts_with("servers.s.require_sandbox: there is none to require"), "{found:?}");
    let found = problems("require_sandbox=true", "sandbox='none'");
    assert!(found[0].starts_with("servers.s.sandbox: is \"none\", while require_sandbox = true holds"), "{found:?}");
    assert_eq!(sandbox("require_sandbox=true", "require_sandbox=false\nsandbox='none'").mode, SandboxMode::None);
    for (root, server, key) in [
        ("[sandbox]\nmode='strict'\nallow=['io_uring']", "sandbox='none'", "sandbox"),
        ("[sandbox]\nallow=['io_uring']", "sandbox='strict'", "servers.s.sandbox"),
        ("", "[servers.s.sandbox]\nnetwork=false\nallow=['io_uring']", "servers.s.sandbox"),
    ] {
        let found = problems(root, server);
        assert!(found[0].starts_with(&format!("{key}: allows \"io_uring\"")), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let found = problems("[sandbox]\nmode='none'\nnetwork=false", "");
    assert!(found[0].starts_with("sandbox.network: has no effect"), "{found:?}");
    let found = problems("", "[servers.s.sandbox]\nmode='none'\nopen='listed'");
    assert!(found[0].starts_with("servers.s.sandbox.open: has no effect"), "{found:?}");
    let found = problems("", "[servers.s.sandbox]\nuser='no such user'");
    assert!(found[0].starts_with("servers.s.sandbox.user: there is no user \"no such user\"; make it"), "{found:?}");
    let found = problems("", "[servers.s.sandbox]\ngroup='root'");
    assert!(found[0].starts_with("servers.s.sandbox.group: a group without a user"), "{found:?}");
    let found = problems("require_sandbox='yes'", "");
    assert!(found[0].starts_with("require_sandbox: a text where true or false belongs"), "{found:?}");
}

#[test]
fn limits_on_the_machine() {
    let limits =
        "[servers.s.limits]\nmemory='512MiB'\ncpu=1.5\nprocesses=64\nopen_files=256\nfile_size='1GiB'\ncpu_time='1h'";
    let resources = valid(&file("", limits)).servers["s"].limits.resources.clone();
    assert_eq!((resources.memory, resources.millicores), (Some(512 << 20), Some(1500)));
    assert_eq!((resources.processes, resources.open_files), (Some(64), Some(256)));
    let found =
        problems("", "[servers.s.limits]\nmemory='1B'\ncpu=0\nprocesses=0\nopen_files=1000000000\ncpu_time='0s'");
    for part in [
        "servers.s.limits.memory: 1B is out of bounds",
        "servers.s.limits.cpu: 0 is out of bounds; use 0.01 to 1024",
        "servers.s.limits.processes: 0 is out of bounds",
        "servers.s.limits.open_files: the system allows the gateway no more than",
        "servers.s.limits.cpu_time: 0s is out of bounds",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(part)), "{part:?} is not in {found:#?}");
    }
}

#[test]
fn a_limit_that_nothing_starts_within_is_a_problem() {
    for (limit, text) in [
        ("memory='15MiB'", "memory: 15MiB is out of bounds; use 16MiB to 1024GiB"),
        ("processes=3", "processes: 3 is out of bounds; use 4 to"),
        ("open_files=31", "open_files: 31 is out of bounds; use 32 to"),
        ("file_size=0", "file_size: 0B is out of bounds; use 1B to 1024GiB"),
    ] {
        let found = problems("", &format!("[servers.s.limits]\n{limit}"));
        assert!(found[0].starts_with(&format!("servers.s.limits.{text}")), "{found:?}");
    }
    valid(&file("", "[servers.s.limits]\nmemory='16MiB'\nprocesses=4\nopen_files=32\nfile_size=1"));
}
