//! Cgroups (v2) for children. Wherever the gateway may make cgroups below its own, each child gets one: what it has
//! started, and whatever became of that, ends with it. Where the gateway has been given a subtree with controllers (a
//! systemd service with `Delegate=yes`, a container whose cgroups are writable), its cgroup also keeps the child's limits.
//!
//! `subtree` finds the place and prepares it, in the gateway; `folder` is what can be done to a single cgroup. Invariant:
//! nothing is touched outside the cgroup that the gateway was started in, and there only what the gateway has made, and
//! which controllers it passes on.

mod group;
mod subtree;

use serde::{Deserialize, Serialize};

pub(super) use group::{Cgroup, end_together, enter, kill, limit};
pub use subtree::{Subtree, Support, support};
pub(super) use subtree::{remove_if_left, tenant_folder};

use crate::config::Resources;

/// What a cgroup can keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Memory.
    pub memory: bool,
    /// Processes.
    pub pids: bool,
    /// Processors.
    pub cpu: bool,
}

impl Controllers {
    fn parse(list: &str) -> Self {
        let has = |name: &str| list.split_ascii_whitespace().any(|word| word == name);
        Self { memory: has("memory"), pids: has("pids"), cpu: has("cpu") }
    }

    /// Their names, as the kernel has them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [("memory", self.memory), ("pids", self.pids), ("cpu", self.cpu)]
            .into_iter()
            .filter_map(|(n, has)| has.then_some(n))
    }
}

/// What a cgroup is to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    memory: Option<u64>,
    processes: Option<u64>,
    millicores: Option<u64>,
}

impl Limits {
    /// Those of `resources` that cgroups with these controllers can keep; none if that is none of them.
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

/// LimitOwner limit a process was ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LimitOwner {
    /// The child's own.
    Child,
    /// That of all children of its tenant.
    Tenant,
}
