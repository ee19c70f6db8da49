//! What the system says about processes: the tests believe /proc, not the gateway.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::harness::eventually;

/// Waits until a process has ended and is reaped: not even a zombie is left.
pub(crate) async fn gone(pid: u32) {
    eventually("the process ends and is reaped", async || (!exists(pid)).then_some(())).await;
}

/// Whether there is a process of this id, be it a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    folder(pid).exists()
}

/// Whether a process runs: it is there, and no zombie.
pub(crate) fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z' && stat.state != 'X')
}

/// What is read of `/proc/<pid>/stat`.
#[derive(Debug)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) group: u32,
}

/// State, parent and process group of a process; none if there is no such process.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(folder(pid).join("stat")).ok()?;
    // The name before it is in parentheses, and may contain anything.
    let mut fields = text.rsplit(')').next()?.split_ascii_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

/// The children of a process and theirs, zombies among them.
pub(crate) fn descendants(ancestor: u32) -> Vec<u32> {
    let parents: HashMap<u32, u32> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let descends = |pid: &u32| {
        std::iter::successors(Some(*pid), |pid| parents.get(pid).copied()).skip(1).any(|pid| pid == ancestor)
    };
    parents.keys().copied().filter(descends).collect()
}

/// The environment that a process was started with, sorted.
pub(crate) fn environment(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(folder(pid).join("environ")).unwrap();
    let mut entries: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|e| !e.is_empty())
        .map(|e| String::from_utf8(e.to_vec()).unwrap())
        .collect();
    entries.sort_unstable();
    entries
}

/// The open descriptors of a process: their numbers and what they lead to, sorted.
pub(crate) fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let mut open: Vec<(u32, String)> = std::fs::read_dir(folder(pid).join("fd"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (number, std::fs::read_link(path).unwrap().display().to_string())
        })
        .collect();
    open.sort_unstable();
    open
}

/// Bytes that a process has written so far, to whatever it is.
pub(crate) fn bytes_written(pid: u32) -> u64 {
    let text = std::fs::read_to_string(folder(pid).join("io")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// The time that processors have worked for a process so far.
pub(crate) fn processor_time(pid: u32) -> std::time::Duration {
    let text = std::fs::read_to_string(folder(pid).join("stat")).unwrap();
    // The name before it is in parentheses, and may contain anything; user and system time are the 14th and 15th field.
    let fields = text.rsplit(')').next().unwrap().split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    std::time::Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// The arguments of a process; none if it has ended.
pub(crate) fn arguments(pid: u32) -> String {
    String::from_utf8(std::fs::read(folder(pid).join("cmdline")).unwrap_or_default()).unwrap().replace('\0', " ")
}

/// The working directory of a process.
pub(crate) fn cwd(pid: u32) -> PathBuf {
    std::fs::read_link(folder(pid).join("cwd")).unwrap()
}

/// A number in `/proc/<pid>/status`, such as `VmRSS` or `VmHWM` in KiB.
pub(crate) fn status(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(folder(pid).join("status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Whether a process is that program by now: between fork and exec it is a copy of its parent.
pub(crate) fn is_running_program(pid: u32, program: &str) -> bool {
    std::fs::read_to_string(folder(pid).join("comm")).is_ok_and(|name| name.trim_end() == program)
}
