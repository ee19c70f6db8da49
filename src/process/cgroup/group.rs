//! Operations on one cgroup, which is a folder of the cgroup file system: processes, limits, killing, removal.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use super::{LimitOwner, Limits};

/// Period for the share of processor time, in microseconds.
const PERIOD: u64 = 100_000;

/// Whose memory limit the kernel killed processes of a child's cgroup for. `None` if the kernel killed none, or killed
/// them because the machine ran out of memory.
pub(in crate::process) fn out_of_memory(path: &Path) -> Option<LimitOwner> {
    // `oom` counts how often this very limit was reached, `oom_kill` the processes in here that any limit has ended.
    let killed = count(&path.join("memory.events"), "oom_kill") > 0;
    let own = count(&path.join("memory.events"), "oom") > 0;
    let above = || count(&path.parent()?.join("memory.events.local"), "oom").checked_sub(1);
    match (killed, own) {
        (false, _) => None,
        (true, true) => Some(LimitOwner::Child),
        // Neither: then it was the machine that ran out.
        (true, false) => above().map(|_| LimitOwner::Tenant),
    }
}

/// The number after `key` in a file of counters; 0 if the file or the key is missing.
fn count(events: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(events).unwrap_or_default();
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or_default()
}

/// Moves this process into a cgroup.
pub(in crate::process) fn enter(path: &Path) -> io::Result<()> {
    // "0" is the process that writes.
    write(&path.join("cgroup.procs"), "0")
}

/// Sets those limits of a cgroup that are given. A memory limit also forbids swap.
pub(in crate::process) fn limit(path: &Path, limits: &Limits) -> io::Result<()> {
    if let Some(memory) = limits.memory {
        write(&path.join("memory.max"), &memory.to_string())?;
        // Without swap there is no such file.
        let _ = write(&path.join("memory.swap.max"), "0");
    }
    if let Some(processes) = limits.processes {
        write(&path.join("pids.max"), &processes.to_string())?;
    }
    if let Some(millicores) = limits.millicores {
        write(&path.join("cpu.max"), &format!("{} {PERIOD}", millicores * PERIOD / 1000))?;
    }
    Ok(())
}

/// Sets the limits of a cgroup that had others, and lifts those that are not among `limits`.
pub(in crate::process) fn limit_anew(path: &Path, limits: &Limits) -> io::Result<()> {
    let Limits { memory, processes, millicores } = *limits;
    let files = [("memory.max", memory), ("pids.max", processes), ("cpu.max", millicores)];
    for (file, _) in files.into_iter().filter(|(_, limit)| limit.is_none()) {
        // Without the controller there is no such file, and no limit.
        let _ = write(&path.join(file), "max");
    }
    limit(path, limits)
}

/// Has the kernel kill all processes of a cgroup when its memory runs out, rather than one of them.
pub(in crate::process) fn end_together(path: &Path) {
    // Without the controller there is no such file, and no limit.
    let _ = write(&path.join("memory.oom.group"), "1");
}

/// Writes to a file of the kernel, which must exist.
pub(super) fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

/// Kills all processes in a cgroup and the cgroups below it.
pub(in crate::process) fn kill(path: &Path) {
    if write(&path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // Before Linux 5.14 one by one.
    below(path).iter().for_each(|folder| kill_one_by_one(folder));
}

fn kill_one_by_one(path: &Path) {
    // What is frozen starts nothing meanwhile, and can be killed.
    let processes = processes(path);
    if !processes.is_empty() {
        let _ = write(&path.join("cgroup.freeze"), "1");
    }
    for pid in processes.union(&self::processes(path)) {
        // "0" is one of another PID namespace, and no process that could be named here.
        let _ = Pid::from_raw(*pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
    }
}

/// Removes a cgroup and all below it. `false` if processes are left in one of them.
pub(in crate::process) fn remove(path: &Path) -> bool {
    let remove = |path: &PathBuf| match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    // Mostly there is nothing in it. Otherwise what is innermost goes first, and this one last.
    remove(&path.to_owned()) || below(path).iter().rev().fold(true, |_, path| remove(path))
}

/// A cgroup and all below it, parents first. Not recursive: a server without a sandbox may have nested many.
pub(super) fn below(path: &Path) -> Vec<PathBuf> {
    let (mut found, mut next) = (Vec::new(), vec![path.to_owned()]);
    while let Some(path) = next.pop() {
        next.extend(folders(&path));
        found.push(path);
    }
    found
}

/// The process ids in a cgroup, without those in cgroups below. Empty if the cgroup cannot be read.
pub(super) fn processes(path: &Path) -> BTreeSet<i32> {
    let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The cgroups directly below a cgroup. Empty if the cgroup cannot be read.
pub(super) fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn whose_memory_ran_out_is_told_apart() {
        let tenant = tempfile::tempdir().unwrap();
        let cgroup = tenant.path().join("1");
        fs::create_dir(&cgroup).unwrap();
        let events = |own: &str, above: &str| {
            fs::write(cgroup.join("memory.events"), own).unwrap();
            fs::write(tenant.path().join("memory.events.local"), above).unwrap();
            out_of_memory(&cgroup)
        };
        assert_eq!(out_of_memory(&cgroup), None);
        assert_eq!(events("low 0\noom 3\noom_kill 0\noom_group_kill 0\n", "oom 1\n"), None);
        assert_eq!(events("oom 1\noom_kill 2\n", "oom 0\n"), Some(LimitOwner::Child));
        assert_eq!(events("oom 0\noom_kill 2\n", "oom 1\n"), Some(LimitOwner::Tenant));
        assert_eq!(events("oom 0\noom_kill 2\n", "oom 0\n"), None, "the machine itself ran out");
    }

    #[test]
    fn cgroups_in_each_other_are_removed_without_recursion() {
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("top");
        let deep = (0..1500).fold(top.clone(), |path, _| path.join("n"));
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        let stack = std::thread::Builder::new().stack_size(64 << 10);
        assert!(stack.spawn(move || remove(&top)).unwrap().join().unwrap());
        assert_eq!(folders(parent.path()), Vec::<PathBuf>::new());
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("memory.max", "1048576"), ("pids.max", "7"), ("cpu.max", "150000 100000")];
        for (file, _) in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let limits = Limits { memory: Some(1 << 20), processes: Some(7), millicores: Some(1500) };
        limit(folder.path(), &limits).unwrap();
        for (file, value) in files {
            assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), value);
        }
        fs::remove_file(folder.path().join("pids.max")).unwrap();
        assert!(limit(folder.path(), &limits).is_err(), "a controller that is not there keeps no limit");
    }
}
