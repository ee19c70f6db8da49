//! Reads `/proc`: which processes there are, who is whose parent, and what they use. Invariant: an entry may be out of
//! date when it is used, so only the parent of a process may signal or reap it by its id; nobody else can free that id.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::Pid;

/// One process, as `/proc/PID/stat` described it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessStat {
    /// Process id of the parent.
    pub(super) parent: i32,
    /// Whether the process has ended and its parent has not reaped it yet.
    pub(super) is_zombie: bool,
    /// Number of threads.
    pub(super) threads: u64,
    /// Time of the start, in clock ticks since boot.
    pub(super) started: u64,
    /// Process group id.
    pub(super) group: i32,
    /// Resident memory in pages, pages shared with other processes included.
    pub(super) pages: u64,
}

/// Identity of a process: its id and the time of its start. Unlike an id alone, a key is never used again for another
/// process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessKey {
    pub(super) pid: i32,
    pub(super) started: u64,
}

impl ProcessKey {
    /// Whether the process still runs. `false` if it has ended, is a zombie, or cannot be read, and if another process
    /// has its id.
    pub(super) fn runs(self) -> bool {
        // What cannot be looked at may be another, and is left alone.
        let found = read_stat(self.pid).ok().flatten();
        found.is_some_and(|process| process.started == self.started && !process.is_zombie)
    }
}

/// All processes of the machine (or container) at one moment, by id.
#[derive(Debug, Default)]
pub(super) struct ProcessTree(HashMap<i32, ProcessStat>);

impl ProcessTree {
    /// Reads `/proc` once, which takes some microseconds for each process. Leaves out processes that end meanwhile, or
    /// that are hidden from this user.
    ///
    /// # Errors
    /// The system refuses, mostly because no file descriptor is left. Then no tree is returned, rather than one that
    /// lacks a process.
    pub(super) fn read() -> io::Result<Self> {
        let mut tree = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that is gone by now does not count. One that cannot be read would be as good as gone: better nothing
            // is known than something wrong.
            if let Some(process) = read_stat(pid)? {
                tree.insert(pid, process);
            }
        }
        Ok(Self(tree))
    }

    /// The ids of the processes whose parent is `pid`, zombies included.
    pub(super) fn children_of(&self, pid: Pid) -> impl Iterator<Item = Pid> {
        let pid = pid.as_raw_pid();
        self.0.iter().filter(move |(_, process)| process.parent == pid).filter_map(|(pid, _)| Pid::from_raw(*pid))
    }

    /// The key of process `pid`, if its parent is `parent`.
    pub(super) fn find_child(&self, parent: Pid, pid: Pid) -> Option<ProcessKey> {
        let pid = pid.as_raw_pid();
        let process = self.0.get(&pid).filter(|process| process.parent == parent.as_raw_pid())?;
        Some(ProcessKey { pid, started: process.started })
    }

    /// All running processes that are one of `leaders` or descend from one. Yields (process id, id of its nearest
    /// leader, number of threads).
    pub(super) fn descendants_by_leader(&self, leaders: &[i32]) -> impl Iterator<Item = (i32, i32, u64)> {
        let leaders: HashSet<i32> = leaders.iter().copied().collect();
        self.running_with_ancestors().filter_map(move |(pid, ancestors)| {
            let leader = std::iter::once(pid).chain(ancestors).find(|pid| leaders.contains(pid))?;
            Some((pid, leader, self.0.get(&pid).map_or(0, |process| process.threads)))
        })
    }

    /// Resident memory of each process group, in bytes, by group id: the sum over its processes. A page shared by
    /// several processes counts once for each.
    pub(super) fn memory_of_groups(&self) -> HashMap<u32, usize> {
        let mut groups = HashMap::new();
        for process in self.0.values() {
            let bytes = usize::try_from(process.pages).unwrap_or(usize::MAX).saturating_mul(rustix::param::page_size());
            let group: &mut usize = groups.entry(process.group.cast_unsigned()).or_default();
            *group = group.saturating_add(bytes);
        }
        groups
    }

    /// The keys of all running descendants of `pid`, without `pid` itself.
    pub(super) fn descendants_of(&self, pid: Pid) -> BTreeSet<ProcessKey> {
        let top = pid.as_raw_pid();
        let below = self.running_with_ancestors().filter(|(_, ancestors)| ancestors.clone().any(|pid| pid == top));
        below.filter_map(|(pid, _)| Some(ProcessKey { pid, started: self.0.get(&pid)?.started })).collect()
    }

    /// All running processes. Yields each id with the ids of its ancestors, the parent first.
    pub(super) fn running_with_ancestors(&self) -> impl Iterator<Item = (i32, impl Iterator<Item = i32> + Clone)> {
        let ancestors = |process: &ProcessStat| {
            std::iter::successors(Some(process.parent), |pid| self.0.get(pid).map(|process| process.parent))
                // Ids may have been used again between two reads: no chain is longer than this.
                .take(self.0.len())
        };
        self.0.iter().filter(|(_, process)| !process.is_zombie).map(move |(pid, process)| (*pid, ancestors(process)))
    }
}

/// Reads the process tree for all parts of the gateway, which share one reading if they ask at about the same time.
#[derive(Debug, Default)]
pub(super) struct ProcReader(Mutex<Option<(Instant, Arc<ProcessTree>)>>);

impl ProcReader {
    /// Returns a tree that was read at most `age` ago; reads `/proc` if the last one is older. Blocks: not for a thread
    /// that serves requests.
    ///
    /// # Errors
    /// As [`ProcessTree::read`].
    pub(super) fn read(&self, age: Duration) -> io::Result<Arc<ProcessTree>> {
        // Whoever comes meanwhile waits, and has the same.
        let mut last = self.0.lock();
        if let Some((_, tree)) = last.as_ref().filter(|(read, _)| read.elapsed() <= age) {
            return Ok(Arc::clone(tree));
        }
        let (begin, tree) = (Instant::now(), Arc::new(ProcessTree::read()?));
        *last = Some((begin, Arc::clone(&tree)));
        Ok(tree)
    }
}

/// Lists the children of this process's main thread: those that it has forked, and orphans. The kernel's list is held
/// open, so that it can be read when no file descriptor is left.
#[derive(Debug)]
pub(super) struct ChildList {
    /// `/proc/PID/task/PID/children`. `None` on a kernel that is built without this file: then the whole tree is read
    /// instead.
    list: Option<File>,
    text: String,
}

impl ChildList {
    pub(super) fn of_this_process() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_pid();
        let list = match File::open(format!("/proc/{pid}/task/{pid}/children")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        Ok(Self { list, text: String::new() })
    }

    /// The ids of the children that exist now.
    ///
    /// # Errors
    /// The system refuses to read the list.
    pub(super) fn read(&mut self) -> io::Result<Vec<Pid>> {
        let Some(list) = &mut self.list else {
            return Ok(ProcessTree::read()?.children_of(rustix::process::getpid()).collect());
        };
        self.text.clear();
        list.rewind()?;
        list.read_to_string(&mut self.text)?;
        Ok(self.text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
    }
}

fn read_stat(pid: i32) -> io::Result<Option<ProcessStat>> {
    Ok(none_if_gone(fs::read_to_string(format!("/proc/{pid}/stat")))?.and_then(|stat| parse_stat(&stat)))
}

/// Turns the errors of reading a process that has ended, or is hidden from this user (`hidepid`), into `None`.
fn none_if_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    read.map(Some).or_else(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::SRCH) => Ok(None),
        _ => Err(error),
    })
}

/// Parses `/proc/PID/stat`: `pid (name) state parent …`. The name may contain spaces and parentheses. `None` if a field
/// is missing or no number.
fn parse_stat(stat: &str) -> Option<ProcessStat> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // The 20th, the 22nd and the 24th field in all.
    let threads = fields.nth(14)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    let pages = fields.nth(1)?.parse().ok()?;
    Some(ProcessStat { parent, is_zombie: matches!(state, "Z" | "X"), threads, started, group, pages })
}

/// Memory and swap of process `pid` in bytes: anonymous and shared memory, without pages of files. 0 if the process has
/// ended or is hidden from this user.
pub(super) fn private_memory_of(pid: i32) -> io::Result<u64> {
    let status = none_if_gone(std::fs::read_to_string(format!("/proc/{pid}/status")))?.unwrap_or_default();
    let kilobytes = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let counts = ["RssAnon", "RssShmem", "VmSwap"].contains(&key);
        value.split_ascii_whitespace().next().filter(|_| counts)?.parse::<u64>().ok()
    };
    Ok(status.lines().filter_map(kilobytes).sum::<u64>() * 1024)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_fields() {
        let rest = "7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 88400 9 9";
        let process =
            |parent, is_zombie| Some(ProcessStat { parent, is_zombie, threads: 1, started: 88400, group: 7, pages: 9 });
        assert_eq!(parse_stat(&format!("7 (a) R 1 (b)) Z 42 {rest}")), process(42, true));
        assert_eq!(parse_stat(&format!("7 (sh) S 1 {rest}")), process(1, false));
        assert_eq!(parse_stat("7 (sh"), None);
    }

    #[test]
    fn this_process_is_below_itself_and_its_parent() {
        let own = rustix::process::getpid().as_raw_pid();
        let parent = rustix::process::getppid().unwrap().as_raw_pid();
        let tree = ProcessTree::read().unwrap();
        assert!(tree.descendants_by_leader(&[own]).all(|(pid, ..)| pid != parent));
        assert!(
            tree.descendants_by_leader(&[own, parent])
                .any(|(pid, leader, threads)| (pid, leader) == (own, own) && threads > 0)
        );
        assert!(tree.descendants_by_leader(&[parent]).any(|(pid, leader, _)| (pid, leader) == (own, parent)));
    }

    #[test]
    fn this_process_is_below_its_parent() {
        let own = rustix::process::getpid();
        let parent = rustix::process::getppid().unwrap();
        let tree = ProcessTree::read().unwrap();
        assert!(tree.children_of(parent).any(|pid| pid == own));
        let (_, mut ancestors) = tree.running_with_ancestors().find(|(pid, _)| *pid == own.as_raw_pid()).unwrap();
        assert_eq!(ancestors.next(), Some(parent.as_raw_pid()));
    }
}
