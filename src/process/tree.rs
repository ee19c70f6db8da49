//! Who is below whom, as `/proc` tells it. What is read may be old by the time it is used: only a process's own parent
//! may act on it, because nobody else can reap the process and so free its id.

use std::collections::HashMap;
use std::{fs, io};

use rustix::process::Pid;

/// A process as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    /// Its parent.
    pub(super) parent: i32,
    /// It has ended, and waits to be reaped.
    pub(super) is_zombie: bool,
}

/// All processes, by id.
#[derive(Debug, Default)]
pub(super) struct Tree(HashMap<i32, Process>);

impl Tree {
    /// Reads `/proc`. Takes some microseconds for each process of the machine (or container).
    pub(super) fn read() -> io::Result<Self> {
        let mut tree = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that is gone by now does not count.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if let Some(process) = parse(&stat) {
                tree.insert(pid, process);
            }
        }
        Ok(Self(tree))
    }

    /// The processes whose parent is `pid`.
    pub(super) fn children_of(&self, pid: Pid) -> impl Iterator<Item = Pid> {
        let pid = pid.as_raw_pid();
        self.0.iter().filter(move |(_, process)| process.parent == pid).filter_map(|(pid, _)| Pid::from_raw(*pid))
    }

    /// All that run, with each one's ancestors from its parent upwards.
    pub(super) fn running(&self) -> impl Iterator<Item = (i32, impl Iterator<Item = i32>)> {
        let ancestors = |process: &Process| {
            std::iter::successors(Some(process.parent), |pid| self.0.get(pid).map(|process| process.parent))
                // Ids may have been used again between two reads: no chain is longer than this.
                .take(self.0.len())
        };
        self.0.iter().filter(|(_, process)| !process.is_zombie).map(move |(pid, process)| (*pid, ancestors(process)))
    }
}

/// The children of this process, which must have one thread only.
pub(super) fn own_children() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid();
    let pid = own.as_raw_pid();
    match fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        Ok(list) => Ok(list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()),
        // A kernel may be built without this file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tree::read()?.children_of(own).collect()),
        Err(error) => Err(error),
    }
}

/// Reads `pid (name) state parent …`; the name may contain anything.
fn parse(stat: &str) -> Option<Process> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Process { parent: fields.next()?.parse().ok()?, is_zombie: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_fields() {
        let stat = "7 (a) R 1 (b)) Z 42 7 7 0 -1";
        assert_eq!(parse(stat), Some(Process { parent: 42, is_zombie: true }));
        assert_eq!(parse("7 (sh) S 1 7 7"), Some(Process { parent: 1, is_zombie: false }));
        assert_eq!(parse("7 (sh"), None);
    }

    #[test]
    fn this_process_is_below_its_parent() {
        let own = rustix::process::getpid();
        let parent = rustix::process::getppid().unwrap();
        let tree = Tree::read().unwrap();
        assert!(tree.children_of(parent).any(|pid| pid == own));
        let (_, mut ancestors) = tree.running().find(|(pid, _)| *pid == own.as_raw_pid()).unwrap();
        assert_eq!(ancestors.next(), Some(parent.as_raw_pid()));
    }
}
