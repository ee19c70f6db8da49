//! The limits on what children use: each child by itself, and all children of a tenant together. Two pollers watch what
//! no cgroup enforces: `usage_poller` memory and processes, `folder_poller` temporary folders. Invariant: a child
//! counts for the tenant that it runs for at present; a spare and a child that all share count for none.

mod folder_poller;
mod usage_poller;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::cgroup::{Controllers, LimitOwner};
use super::child::Child;
use super::exit::Exit;
use super::folder::{FolderSize, PrivateFolder};
use super::guardian::Guardian;
use super::launch::Launch;
use super::limits::ProcessLimits;
use super::stderr::Origin;
use super::usage::{Excess, Limit, WatchedLimits};
use crate::config::{Resources, Tenant, TenantId, may_raise_limits};

pub use folder_poller::watch_folders;
pub use usage_poller::watch_usage;

/// The limits of all tenants and the children that count against them. Clones share their state.
#[derive(Clone)]
pub struct Ceilings(Arc<Shared>);

struct Shared {
    /// Replaced as a whole when the configuration is.
    tenants: ArcSwap<HashMap<TenantId, Arc<Ceiling>>>,
    /// The running children, by their number in the guardian's table.
    charged: Mutex<HashMap<u64, Charged>>,
    /// What the last look found to be nearly used up.
    short: Mutex<Short>,
    /// Whether the guardian has the right to limit running processes of any user.
    limits_any: bool,
    failures: Counter,
    /// Reads the process tree, and has cgroups.
    guardian: Guardian,
}

/// The memory that is nearly used up: idle children are ended before the system or the gateway has to end others.
#[derive(Default)]
struct Short {
    /// The tenants whose children together use nine tenths of their limit on memory.
    tenants: HashSet<TenantId>,
    /// Whether less than a twentieth of the machine's memory is available.
    machine: bool,
    /// The number of children that have ended so far. What was found before the last end is no longer true.
    ended: u64,
}

struct Ceiling {
    limits: Resources,
    /// The most children that the tenant may have at once.
    max_children: Option<usize>,
    /// Whether the children of the tenant are in a common cgroup.
    has_cgroup: bool,
    /// Whether some children may run outside of that cgroup, because they were started before the gateway made it.
    is_split: bool,
    /// The limits that no cgroup enforces.
    watched: WatchedLimits,
}

/// A running child that counts against limits.
struct Charged {
    pid: i32,
    origin: Origin,
    /// The child's own limits that no cgroup enforces.
    watched: WatchedLimits,
    /// The child's temporary folder, and the most that may be in it.
    temp: Option<(Weak<PrivateFolder>, FolderSize)>,
    excess: watch::Sender<Option<Excess>>,
}

impl Ceilings {
    /// Takes the limits of all `tenants`, and makes cgroups for them where that is possible. `failures` counts attempts
    /// to watch that could not read anything.
    pub fn new<'a>(
        tenants: impl IntoIterator<Item = (&'a TenantId, &'a Tenant)>,
        guardian: &Guardian,
        failures: Counter,
    ) -> Self {
        // It has the same privileges as the gateway. Who is not root runs all children as itself.
        let limits_any = may_raise_limits() || !rustix::process::geteuid().is_root();
        let (charged, guardian) = (Mutex::default(), guardian.clone());
        let short = Mutex::default();
        let shared = Shared { tenants: ArcSwap::default(), charged, short, limits_any, failures, guardian };
        let ceilings = Self(Arc::new(shared));
        ceilings.replace(tenants);
        ceilings
    }

    /// Replaces the tenants and their limits. Limits on all children of a tenant together hold for running children
    /// too; limits on each process hold for children that start later.
    pub fn replace<'a>(&self, tenants: impl IntoIterator<Item = (&'a TenantId, &'a Tenant)>) {
        let before = self.0.tenants.load_full();
        let ceiling = |(name, tenant): (&TenantId, &Tenant)| {
            let before = before.get(name);
            let is_same =
                |before: &&Arc<Ceiling>| (&before.limits, before.max_children) == (&tenant.limits, tenant.max_children);
            let kept = before.filter(is_same);
            (name.clone(), kept.map_or_else(|| Arc::new(self.ceiling(name, tenant, before)), Arc::clone))
        };
        self.0.tenants.store(Arc::new(tenants.into_iter().map(ceiling).collect()));
    }

    fn ceiling(&self, name: &TenantId, tenant: &Tenant, before: Option<&Arc<Ceiling>>) -> Ceiling {
        let (guardian, limits) = (&self.0.guardian, tenant.limits.clone());
        let made = guardian.cgroups().map(|cgroups| cgroups.limit_tenant(name, &limits));
        if let Some(Err(error)) = made {
            tracing::warn!(tenant = %name, %error, "the tenant gets no cgroup: its limits are watched");
        }
        let has_cgroup = guardian.limits_tenant(name);
        // Children that run already stay where they were started.
        let is_split = before.is_some_and(|before| before.is_split || !before.has_cgroup);
        let kept = if has_cgroup && !is_split { guardian.controllers() } else { Controllers::default() };
        let watched = WatchedLimits::left(&limits, kept);
        Ceiling { limits, max_children: tenant.max_children, has_cgroup, is_split, watched }
    }

    /// The number of children that a tenant may have at once, if it is limited.
    pub fn max_children(&self, tenant: &TenantId) -> Option<usize> {
        self.0.tenants.load().get(tenant)?.max_children
    }

    /// Whether the children of a tenant use nine tenths of the tenant's memory, as far as the gateway watches it. A cgroup
    /// that keeps the limit is not looked at.
    pub fn is_short_of_memory(&self, tenant: &TenantId) -> bool {
        self.0.short.lock().tenants.contains(tenant)
    }

    /// Whether less than a twentieth of the machine's memory is available.
    pub fn is_machine_short_of_memory(&self) -> bool {
        self.0.short.lock().machine
    }

    /// Notes what a look has found, unless a child has ended since the look began.
    fn note_short(&self, found: Short) {
        let mut short = self.0.short.lock();
        if short.ended == found.ended {
            *short = found;
        }
    }

    /// Whether a spare may become a child of `tenant`. It may not if a cgroup enforces the tenant's limits, because
    /// memory that a process has taken stays with its first cgroup; nor if the tenant limits each process and the
    /// guardian cannot set limits of the spare's processes, because they have another user.
    pub fn takes_spares(&self, tenant: &TenantId) -> bool {
        let can_be_limited = |ceiling: &Arc<Ceiling>| {
            self.0.limits_any || ProcessLimits::from(&ceiling.limits) == ProcessLimits::default()
        };
        self.0.tenants.load().get(tenant).is_none_or(|ceiling| !ceiling.has_cgroup && can_be_limited(ceiling))
    }

    /// Makes `launch` a launch for `tenant`, with the lower one of each process limit of the two. Returns `launch`
    /// unchanged without a tenant, or if the configuration does not have the tenant.
    pub fn apply(&self, launch: Launch, tenant: Option<&TenantId>) -> Launch {
        let tenants = self.0.tenants.load();
        let Some((tenant, ceiling)) = tenant.and_then(|tenant| tenants.get_key_value(tenant)) else { return launch };
        let mut launch = Launch { tenant: Some(tenant.clone()), ..launch };
        launch.policy.limits = launch.policy.limits.lowered(&ceiling.limits);
        launch
    }

    /// Asks the owner of the child `id` to end it because of `excess`. No effect if the registration has ended.
    fn end(&self, id: u64, excess: Excess) {
        if let Some(charged) = self.0.charged.lock().get(&id) {
            charged.excess.send_replace(Some(excess));
        }
    }

    /// Counts `child` against limits. `origin` tells for which tenant it runs.
    pub fn charge(&self, child: &Child, origin: &Origin) -> Charge {
        let (excess, exceeded) = watch::channel(None);
        let (id, pid) = (child.id(), child.pid().cast_signed());
        let temp = child.folder.as_ref().map(|folder| (Arc::downgrade(folder), child.temp));
        let charged = Charged { pid, origin: origin.clone(), watched: child.watched, temp, excess };
        self.0.charged.lock().insert(id, charged);
        Charge {
            ceilings: self.clone(),
            started_for: origin.tenant(),
            limits: child.process_limits.clone(),
            origin: origin.clone(),
            exceeded,
            id,
        }
    }
}

/// The registration of a child that counts against limits. The owner of the child ends the registration.
pub struct Charge {
    ceilings: Ceilings,
    id: u64,
    origin: Origin,
    started_for: Option<TenantId>,
    /// The limits of each process, as set at the child's start.
    limits: ProcessLimits,
    exceeded: watch::Receiver<Option<Excess>>,
}

impl Charge {
    /// Assigns the child to the session `session` of `tenant`. Lowers the limits of its processes to those of the
    /// tenant, unless the child was started for this tenant.
    pub fn adopt(&self, tenant: &TenantId, session: &str) {
        self.origin.adopt(tenant, session);
        if self.started_for.as_ref() == Some(tenant) {
            return;
        }
        if let Some(ceiling) = self.ceilings.0.tenants.load().get(tenant) {
            let lowered = self.limits.lowered(&ceiling.limits);
            if lowered != self.limits {
                self.ceilings.0.guardian.limit(self.id, lowered);
            }
        }
    }

    /// Waits until the child exceeds a limit, or all children of its tenant together do and this one has to end. The
    /// owner then has to kill the child at once. Never returns if the registration ends before that.
    pub async fn exceeded(&self) -> Excess {
        let mut exceeded = self.exceeded.clone();
        match exceeded.wait_for(Option::is_some).await.ok().and_then(|excess| excess.clone()) {
            Some(excess) => excess,
            // Once it counts no more there is nothing to wait for.
            None => std::future::pending().await,
        }
    }

    /// The memory limit of the tenant that the child was started for, if `exit` says that the kernel ended the child
    /// for it.
    pub fn ended_for(&self, exit: Exit) -> Option<Excess> {
        let tenant = self.started_for.as_ref().filter(|_| exit.out_of_memory == Some(LimitOwner::Tenant))?;
        let limit = self.ceilings.0.tenants.load().get(tenant)?.limits.memory?;
        Some(Excess::new(Limit::Memory, limit as u64, Some(tenant.clone())))
    }

    /// Ends the registration, once the child has ended.
    pub fn end(&self) {
        self.ceilings.0.charged.lock().remove(&self.id);
        let mut short = self.ceilings.0.short.lock();
        *short = Short { ended: short.ended + 1, ..Short::default() };
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    impl Charge {
        /// A registration without a process.
        pub(crate) fn of_no_process(guardian: &Guardian, origin: &Origin) -> Self {
            Self {
                ceilings: Ceilings::new([], guardian, Counter::default()),
                started_for: None,
                limits: ProcessLimits::default(),
                origin: origin.clone(),
                exceeded: watch::channel(None).1,
                id: 0,
            }
        }
    }

    pub(super) fn tenant() -> TenantId {
        "acme".parse().unwrap()
    }

    /// Makes limits for one tenant and `children` (process id, limits) that count against them.
    pub(super) fn ceilings(
        ceiling: WatchedLimits,
        children: impl IntoIterator<Item = (i32, WatchedLimits)>,
    ) -> Ceilings {
        let limits = Resources::default();
        let tenants = HashMap::from([(
            tenant(),
            Arc::new(Ceiling { limits, max_children: None, has_cgroup: false, is_split: false, watched: ceiling }),
        )]);
        let tenants = ArcSwap::from_pointee(tenants);
        let origin = Origin::new(&tenant(), &"s".parse().unwrap(), "-");
        let charged = (1..).zip(children).map(|(id, (pid, watched))| {
            (id, Charged { pid, origin: origin.clone(), watched, temp: None, excess: watch::channel(None).0 })
        });
        let charged = Mutex::new(charged.collect());
        let (failures, guardian) = (Counter::default(), Guardian::of_nobody());
        let short = Mutex::default();
        Ceilings(Arc::new(Shared { tenants, charged, short, limits_any: true, failures, guardian }))
    }

    #[test]
    fn a_spare_is_for_who_can_be_limited() {
        let mut shared = Arc::into_inner(ceilings(WatchedLimits::default(), []).0).unwrap();
        shared.limits_any = false;
        let ceilings = Ceilings(Arc::new(shared));
        let limited = |limits| ceilings.replace([(&tenant(), &Tenant { limits, ..Tenant::default() })]);
        limited(Resources { memory: Some(1), ..Resources::default() });
        assert!(ceilings.takes_spares(&tenant()), "memory is watched, whoever is");
        limited(Resources { open_files: Some(1), ..Resources::default() });
        assert!(!ceilings.takes_spares(&tenant()));
    }
}
