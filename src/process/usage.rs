//! What a child uses of memory and processes, and the limits that the gateway watches where no cgroup enforces them.
//! Memory is what a process holds for itself in RAM or swap. Data in an in-memory file (memfd, tmpfs) that no process
//! maps is not counted here, unlike in a cgroup.

use std::collections::HashMap;
use std::time::Duration;
use std::{fmt, io};

use super::cgroup::Controllers;
use super::guardian::Guardian;
use super::proc::{ProcessTree, private_memory_of};
use crate::config::{Resources, TenantId, show_bytes};

/// Maximum age of the process tree that resident memory is computed from.
const MAX_AGE: Duration = Duration::from_millis(250);

/// Limits that the gateway has to watch, of one child or of all children of a tenant together: bytes of memory, and
/// number of processes and threads. `None`: nothing to watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WatchedLimits {
    pub(super) memory: Option<u64>,
    pub(super) processes: Option<u64>,
}

impl WatchedLimits {
    /// The part of `limits` that cgroups with the controllers `kept` do not enforce.
    pub(super) fn left(limits: &Resources, kept: Controllers) -> Self {
        Self {
            memory: limits.memory.filter(|_| !kept.memory).map(|bytes| bytes as u64),
            processes: limits.processes.filter(|_| !kept.pids).map(|count| count as u64),
        }
    }

    /// Whether there is no limit to watch.
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The limit that a child with the usage `used` exceeds, that on processes before that on memory; `None` if it
    /// exceeds none.
    pub(super) fn exceeded_by(self, used: Usage) -> Option<Excess> {
        let over = |limit: Option<u64>, used: u64| limit.filter(|limit| used > *limit);
        let processes = over(self.processes, used.processes).map(|limit| Excess::new(Limit::Processes, limit, None));
        processes.or_else(|| over(self.memory, used.memory).map(|limit| Excess::new(Limit::Memory, limit, None)))
    }
}

/// A limit that a child, or all children of a tenant together, have exceeded. The owner of the child ends it for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    kind: Limit,
    limit: u64,
    /// The tenant whose limit for all its children was exceeded; `None` for a limit of the child itself.
    tenant: Option<TenantId>,
}

/// A kind of limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Memory in bytes.
    Memory,
    /// Number of processes and threads.
    Processes,
    /// Bytes in the temporary folder.
    TempSize,
    /// Files and folders in the temporary folder.
    TempFiles,
    /// The same, where the child moves or closes entries faster than the gateway can count them.
    TempHidden,
}

impl Excess {
    /// The child exceeds its own limit, or all children of `tenant` together exceed the tenant's. `limit` is the limit
    /// in the unit of its kind.
    pub(super) fn new(kind: Limit, limit: u64, tenant: Option<TenantId>) -> Self {
        Self { kind, limit, tenant }
    }

    /// The name of the limit for metrics, from a closed set.
    pub fn label(&self) -> &'static str {
        match (self.kind, &self.tenant) {
            (Limit::Memory, None) => "memory",
            (Limit::Processes, None) => "processes",
            (Limit::Memory, Some(_)) => "tenant_memory",
            (Limit::Processes, Some(_)) => "tenant_processes",
            (Limit::TempSize, _) => "temp_size",
            (Limit::TempFiles | Limit::TempHidden, _) => "temp_files",
        }
    }
}

/// Completes a sentence that begins with "it used".
impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = || show_bytes(usize::try_from(self.limit).unwrap_or(usize::MAX));
        let (what, key) = match self.kind {
            Limit::Memory => (format!("more memory than {}", bytes()), "memory"),
            Limit::TempSize => (format!("more than {} in its temporary folder", bytes()), "temp_size"),
            Limit::TempFiles => (
                format!("more than {} files in its temporary folder, or folders more than 64 deep", self.limit),
                "temp_files",
            ),
            Limit::TempHidden => (
                "a temporary folder in which it moves or closes files or folders so often that they cannot be counted"
                    .to_owned(),
                "temp_files",
            ),
            Limit::Processes => (format!("more processes and threads than {}", self.limit), "processes"),
        };
        let Some(tenant) = &self.tenant else { return write!(f, "{what} (limits.{key})") };
        write!(f, "the most of all servers of the tenant, which used {what} together (tenants.{tenant}.limits.{key})")
    }
}

/// What a child and all its descendants use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Private memory in bytes, as [`private_memory_of`] counts.
    pub(super) memory: u64,
    /// Number of threads, over all processes.
    pub(super) processes: u64,
}

impl Usage {
    /// The usage of each child, by its process id. `leaders` are the process ids of the children.
    ///
    /// # Errors
    /// A running process cannot be read. Then no usage is returned, rather than one that is too low.
    pub(super) fn of(leaders: &[i32], tree: &ProcessTree) -> io::Result<HashMap<i32, Self>> {
        let mut used: HashMap<i32, Self> = leaders.iter().map(|leader| (*leader, Self::default())).collect();
        for (pid, leader, threads) in tree.descendants_by_leader(leaders) {
            if let Some(usage) = used.get_mut(&leader) {
                usage.processes += threads;
                usage.memory += private_memory_of(pid)?;
            }
        }
        Ok(used)
    }
}

/// Resident memory of each process group of the machine, in bytes, by group id; see [`ProcessTree::memory_of_groups`].
/// Empty if `/proc` cannot be read. Blocks: not for a thread that serves requests.
pub fn memory_of_groups(guardian: &Guardian) -> HashMap<u32, usize> {
    guardian.processes().read(MAX_AGE).map(|tree| tree.memory_of_groups()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::super::proc::ProcReader;
    use super::*;

    #[test]
    fn a_process_is_counted_with_what_is_below_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let used = Usage::of(&[own], &ProcReader::default().read(Duration::ZERO).unwrap()).unwrap()[&own];
        let bounds = |memory, processes| WatchedLimits { memory, processes };
        assert_eq!(bounds(Some(1 << 40), Some(1 << 22)).exceeded_by(used), None);
        assert_eq!(bounds(Some(4096), None).exceeded_by(used), Some(Excess::new(Limit::Memory, 4096, None)));
        assert_eq!(bounds(None, Some(0)).exceeded_by(used), Some(Excess::new(Limit::Processes, 0, None)));
    }

    #[test]
    fn the_memory_of_this_very_group_is_seen() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
        assert!(memory_of_groups(&Guardian::of_nobody()).get(&group).is_some_and(|bytes| *bytes > 1 << 20));
    }

    #[test]
    fn what_a_cgroup_keeps_is_not_watched() {
        let kept = Controllers { memory: true, pids: true, cpu: false };
        let limits = Resources { memory: Some(1), processes: Some(1), ..Resources::default() };
        assert!(WatchedLimits::left(&limits, kept).is_empty());
        assert_eq!(
            WatchedLimits::left(&limits, Controllers::default()),
            WatchedLimits { memory: Some(1), processes: Some(1) }
        );
    }
}
