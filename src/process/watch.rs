//! Watches what a child and all below it use, where no cgroup does. Invariant: a child that outgrows its limits is found
//! within two looks; how much it can take in between is up to the machine.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::tree::Tree;
use crate::config::{Resources, TenantId, show_bytes};

/// How often a child is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// How old a list of all processes may be: all children that are watched share one.
const FRESH: Duration = Duration::from_millis(200);

/// The last list of all processes.
static LAST: Mutex<Option<(Instant, Arc<Tree>)>> = Mutex::new(None);

/// What a child may not exceed, and whose child it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    leader: i32,
    memory: Option<u64>,
    processes: Option<u64>,
}

/// A limit that was exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    what: What,
    limit: u64,
    /// Whose limit it is, where it is for all children of a tenant together.
    tenant: Option<TenantId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Memory,
    Processes,
}

impl Excess {
    /// More memory than `limit` bytes; of all children of a tenant, if one is named.
    pub(super) fn memory(limit: u64, tenant: Option<TenantId>) -> Self {
        Self { what: What::Memory, limit, tenant }
    }

    /// More processes and threads than `limit`.
    pub(super) fn processes(limit: u64, tenant: Option<TenantId>) -> Self {
        Self { what: What::Processes, limit, tenant }
    }

    /// Which limit it is, in a word of a closed set.
    pub fn label(&self) -> &'static str {
        match (self.what, &self.tenant) {
            (What::Memory, None) => "memory",
            (What::Processes, None) => "processes",
            (What::Memory, Some(_)) => "tenant_memory",
            (What::Processes, Some(_)) => "tenant_processes",
        }
    }
}

/// Goes on from "it used".
impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, key) = match self.what {
            What::Memory => {
                let limit = show_bytes(usize::try_from(self.limit).unwrap_or(usize::MAX));
                (format!("more memory than {limit}"), "memory")
            }
            What::Processes => (format!("more processes and threads than {}", self.limit), "processes"),
        };
        match &self.tenant {
            None => write!(f, "{what} (limits.{key})"),
            Some(tenant) => {
                write!(
                    f,
                    "the most of all servers of the tenant, which used {what} together (tenants.{tenant}.limits.{key})"
                )
            }
        }
    }
}

/// What a child and all below it use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes.
    pub(super) memory: u64,
    /// Processes and threads.
    pub(super) processes: u64,
}

impl Usage {
    /// What each of these children uses.
    pub(super) fn of(leaders: &[i32], tree: &Tree) -> HashMap<i32, Self> {
        let mut used: HashMap<i32, Self> = leaders.iter().map(|leader| (*leader, Self::default())).collect();
        for (pid, leader, threads) in tree.below_each(leaders) {
            if let Some(usage) = used.get_mut(&leader) {
                usage.processes += threads;
                usage.memory += memory_of(pid).unwrap_or_default();
            }
        }
        used
    }
}

impl Watch {
    /// What is left to watch where a cgroup keeps `memory` or `processes`.
    pub(super) fn new(leader: i32, limits: &Resources, kept: super::cgroup::Controllers) -> Self {
        let memory = limits.memory.filter(|_| !kept.memory).map(|bytes| bytes as u64);
        let processes = limits.processes.filter(|_| !kept.pids).map(|count| count as u64);
        Self { leader, memory, processes }
    }

    /// Waits until a limit is exceeded.
    pub(super) async fn exceeded(&self) -> Excess {
        if self.memory.is_none() && self.processes.is_none() {
            return std::future::pending().await;
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let watch = self.clone();
            if let Ok(Some(excess)) = tokio::task::spawn_blocking(move || watch.look()).await {
                return excess;
            }
        }
    }

    fn look(&self) -> Option<Excess> {
        let tree = recent()?;
        let members: Vec<(i32, u64)> = tree.threads_below(self.leader).collect();
        let threads = members.iter().map(|(_, threads)| threads).sum::<u64>();
        if let Some(limit) = self.processes.filter(|limit| threads > *limit) {
            return Some(Excess::processes(limit, None));
        }
        let limit = self.memory?;
        let used: u64 = members.iter().filter_map(|(pid, _)| memory_of(*pid)).sum();
        (used > limit).then_some(Excess::memory(limit, None))
    }
}

/// A list of all processes that is fresh enough. Who comes while one is made waits for it, and takes the same.
pub(super) fn recent() -> Option<Arc<Tree>> {
    let mut last = LAST.lock();
    if let Some((read, tree)) = &*last
        && read.elapsed() < FRESH
    {
        return Some(Arc::clone(tree));
    }
    let tree = Arc::new(Tree::read().ok()?);
    *last = Some((Instant::now(), Arc::clone(&tree)));
    Some(tree)
}

/// What a process alone keeps in memory or swap, in bytes: not the pages of files, which can be had again.
fn memory_of(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kilobytes = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let counts = ["RssAnon", "RssShmem", "VmSwap"].contains(&key);
        value.split_ascii_whitespace().next().filter(|_| counts)?.parse::<u64>().ok()
    };
    Some(status.lines().filter_map(kilobytes).sum::<u64>() * 1024)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::process::cgroup::Controllers;

    #[test]
    fn a_process_is_counted_with_what_is_below_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let watch = |memory, processes| {
            let limits = Resources { memory, processes, ..Resources::default() };
            Watch::new(own, &limits, Controllers::default())
        };
        assert_eq!(watch(Some(1 << 40), Some(1 << 22)).look(), None);
        assert_eq!(watch(Some(4096), None).look(), Some(Excess::memory(4096, None)));
        assert_eq!(watch(None, Some(0)).look(), Some(Excess::processes(0, None)));
        let kept = Controllers { memory: true, pids: true, cpu: false };
        let limits = Resources { memory: Some(1), processes: Some(1), ..Resources::default() };
        assert_eq!(Watch::new(own, &limits, kept).look(), None);
    }
}
