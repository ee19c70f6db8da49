//! Finds processes that a gateway has left behind, by a variable in the environment that all its children inherit.

use std::fs;
use std::path::{Path, PathBuf};

/// The variable; its value is a gateway's own.
pub(super) const MARK: &str = "SLUICE_TEST_ID";

/// Every process with the mark in its environment, and every zombie among `pids`, in words.
pub(super) fn processes(mark: &str, pids: &[u32]) -> Vec<String> {
    let zombies = pids.iter().filter(|pid| is_zombie(&process(**pid))).map(|pid| format!("{pid} (zombie)"));
    marked(mark).into_iter().map(|pid| format!("{pid} {}", command(&process(pid)))).chain(zombies).collect()
}

/// Ends what a failed test has left, for the sake of the others.
pub(super) fn end(mark: &str) {
    for pid in marked(mark) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn marked(mark: &str) -> Vec<u32> {
    let variable = format!("{MARK}={mark}");
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse().ok());
    pids.filter(|pid| {
        // What ends while it is looked at is not left behind.
        let environment = fs::read(process(*pid).join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|set| set == variable.as_bytes())
    })
    .collect()
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn is_zombie(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; the state follows it.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn command(process: &Path) -> String {
    String::from_utf8_lossy(&fs::read(process.join("cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// The process ids that fixtures have written into `file`, a line each.
pub(super) fn noted(file: &Path) -> Vec<u32> {
    fs::read_to_string(file).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
}
