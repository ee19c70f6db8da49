//! Cgroups (v2) for children. Where the gateway may make cgroups below its own, each child gets one, and all processes
//! that the child has started are killed with it. Where the gateway's cgroup has delegated controllers (a systemd
//! service with `Delegate=yes`, a container with writable cgroups), the child's cgroup also enforces limits.
//!
//! `subtree` finds and prepares the place in the gateway; `group` operates on a single cgroup. Invariant: nothing
//! outside of the gateway's own cgroup is touched, and inside only what the gateway has made, and which controllers are
//! delegated.

mod group;
mod subtree;

use serde::{Deserialize, Serialize};

pub(super) use group::{end_together, enter, kill, limit, out_of_memory, remove};
pub use subtree::{Subtree, Support, support};
pub(super) use subtree::{remove_if_left, tenant_folder};

use crate::config::Resources;

/// The kinds of limits that cgroups can enforce here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Memory.
    pub memory: bool,
    /// The number of processes.
    pub pids: bool,
    /// Processor time.
    pub cpu: bool,
}

impl Controllers {
    fn parse(list: &str) -> Self {
        let has = |name: &str| list.split_ascii_whitespace().any(|word| word == name);
        Self { memory: has("memory"), pids: has("pids"), cpu: has("cpu") }
    }

    /// The kernel's names of the controllers that are available.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [("memory", self.memory), ("pids", self.pids), ("cpu", self.cpu)];
        all.into_iter().filter_map(|(name, has)| has.then_some(name))
    }
}

/// Limits for a cgroup to enforce. `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    memory: Option<u64>,
    processes: Option<u64>,
    millicores: Option<u64>,
}

impl Limits {
    /// The part of `resources` that cgroups with the controllers `kept` can enforce; `None` if that is nothing.
    pub(super) fn of(resources: &Resources, kept: Controllers) -> Option<Self> {
        let wide = |value: Option<usize>, is_kept: bool| value.filter(|_| is_kept).map(|value| value as u64);
        let limits = Self {
            memory: wide(resources.memory, kept.memory),
            processes: wide(resources.processes, kept.pids),
            millicores: wide(resources.millicores, kept.cpu),
        };
        (limits != Self::default()).then_some(limits)
    }
}

/// Whose limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LimitOwner {
    /// That of the child itself.
    Child,
    /// That of all children of the child's tenant.
    Tenant,
}
