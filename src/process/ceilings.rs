//! What all children of a tenant together may use: how many there are, and their memory and processes, which are summed
//! up four times a second where no cgroup keeps them. Invariants: a child counts for the tenant that it runs for at the
//! moment, a spare and one that all share for none; at most one child of a tenant is on its way out for its ceiling.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::cgroup::{Controllers, Whose};
use super::child::{Child, Exit};
use super::guardian::{Guardian, Limiter};
use super::launch::Launch;
use super::limits::ProcessLimits;
use super::stderr::Origin;
use super::watch::{Excess, LOOK, Usage, recent};
use crate::config::{Resources, Tenant, TenantId};

/// The ceilings of all tenants; cheap to clone.
#[derive(Clone)]
pub struct Ceilings(Arc<Shared>);

struct Shared {
    tenants: HashMap<TenantId, Ceiling>,
    charged: Mutex<HashMap<u64, Charged>>,
    last: AtomicU64,
}

struct Ceiling {
    limits: Resources,
    /// Children at once.
    places: Option<(usize, Arc<Semaphore>)>,
    /// Whether they have a cgroup together.
    has_cgroup: bool,
    /// Those of the limits that it does not keep.
    watched: Resources,
}

/// A child that counts.
struct Charged {
    pid: i32,
    origin: Origin,
    excess: watch::Sender<Option<Excess>>,
}

/// A place for a child under its tenant's ceiling.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, and dropped")] Option<OwnedSemaphorePermit>);

/// A tenant has as many children as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tenant has all its {most} children in use (tenants.{tenant}.limits.max_children)")]
pub struct Full {
    /// The tenant.
    pub tenant: TenantId,
    /// How many.
    pub most: usize,
}

impl Ceilings {
    /// Those of the tenants of a configuration. Where cgroups can keep them, they do from now on.
    pub fn new<'a>(tenants: impl IntoIterator<Item = (&'a TenantId, &'a Tenant)>, guardian: &Guardian) -> Self {
        let ceiling = |(name, tenant): (&TenantId, &Tenant)| {
            let limits = tenant.limits.clone();
            let made = guardian.cgroups().map(|cgroups| cgroups.limit_tenant(name, &limits));
            if let Some(Err(error)) = made {
                tracing::warn!(tenant = %name, %error, "the tenant gets no cgroup: its limits are watched");
            }
            let has_cgroup = guardian.cgroups().is_some_and(|cgroups| cgroups.limits_tenant(name));
            let kept = if has_cgroup { guardian.controllers() } else { Controllers::default() };
            let watched = Resources {
                memory: limits.memory.filter(|_| !kept.memory),
                processes: limits.processes.filter(|_| !kept.pids),
                ..Resources::default()
            };
            let places = tenant.max_children.map(|most| (most, Arc::new(Semaphore::new(most))));
            (name.clone(), Ceiling { limits, places, has_cgroup, watched })
        };
        let tenants = tenants.into_iter().map(ceiling).collect();
        Self(Arc::new(Shared { tenants, charged: Mutex::default(), last: AtomicU64::new(0) }))
    }

    /// A place for one more child of a tenant, as soon as there is one.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn place(&self, tenant: &TenantId, patience: Duration) -> Result<Place, Full> {
        let Some((most, places)) = self.0.tenants.get(tenant).and_then(|ceiling| ceiling.places.as_ref()) else {
            return Ok(Place(None));
        };
        match timeout(patience, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place(Some(permit))),
            _ => Err(Full { tenant: tenant.clone(), most: *most }),
        }
    }

    /// Whether a child that was started for nobody can become this tenant's. It cannot where a cgroup keeps what the
    /// tenant's children use together: what a running process has taken stays with the cgroup that it was in.
    pub fn takes_spares(&self, tenant: &TenantId) -> bool {
        self.0.tenants.get(tenant).is_none_or(|ceiling| !ceiling.has_cgroup)
    }

    /// What is started for a tenant has the limits of the tenant too.
    pub fn apply(&self, launch: Launch, tenant: Option<&TenantId>) -> Launch {
        let Some((tenant, ceiling)) = tenant.and_then(|tenant| self.0.tenants.get_key_value(tenant)) else {
            return launch;
        };
        let mut launch = Launch { tenant: Some(tenant.clone()), ..launch };
        launch.policy.limits = launch.policy.limits.lowered(&ceiling.limits);
        launch
    }

    /// Has a child count.
    pub fn charge(&self, child: &Child, origin: &Origin) -> Charge {
        let (excess, exceeded) = watch::channel(None);
        let (id, pid) = (self.0.last.fetch_add(1, Ordering::Relaxed), child.pid().cast_signed());
        self.0.charged.lock().insert(id, Charged { pid, origin: origin.clone(), excess });
        Charge {
            ceilings: self.clone(),
            limiter: child.limiter(),
            started_for: origin.tenant(),
            limits: child.process_limits().clone(),
            origin: origin.clone(),
            exceeded,
            id,
        }
    }

    /// Sums up, until it is stopped.
    pub async fn watch(self, stop: CancellationToken) {
        if !self.0.tenants.values().any(|ceiling| ceiling.watched != Resources::default()) {
            return;
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let ceilings = self.clone();
            let _ = tokio::task::spawn_blocking(move || ceilings.look()).await;
        }
    }

    fn look(&self) -> Option<()> {
        let theirs = self.watched();
        if theirs.is_empty() {
            return None;
        }
        let leaders: Vec<i32> = theirs.values().flatten().copied().collect();
        let used = Usage::of(&leaders, &*recent()?);
        for (tenant, leaders) in theirs {
            let limits = &self.0.tenants.get(&tenant)?.watched;
            if let Some((leader, excess)) = over(&tenant, limits, &leaders, &used)
                && let Some(charged) = self.0.charged.lock().values().find(|charged| charged.pid == leader)
            {
                charged.excess.send_replace(Some(excess));
            }
        }
        Some(())
    }

    /// The children of each tenant whose use is watched; none of one of which a child is on its way out.
    fn watched(&self) -> HashMap<TenantId, Vec<i32>> {
        let mut theirs: HashMap<TenantId, Option<Vec<i32>>> = HashMap::new();
        for charged in self.0.charged.lock().values() {
            let Some(tenant) = charged.origin.tenant() else { continue };
            if self.0.tenants.get(&tenant).is_some_and(|ceiling| ceiling.watched != Resources::default()) {
                let pids = theirs.entry(tenant).or_insert_with(|| Some(Vec::new()));
                match (charged.excess.borrow().is_some(), pids.as_mut()) {
                    (false, Some(pids)) => pids.push(charged.pid),
                    _ => *pids = None,
                }
            }
        }
        theirs.into_iter().filter_map(|(tenant, pids)| Some((tenant, pids?))).collect()
    }
}

/// The child that has to go, where there is one: the largest, which is the likeliest cause, and whose end helps most. Of
/// equals, the newest.
fn over(tenant: &TenantId, limits: &Resources, leaders: &[i32], used: &HashMap<i32, Usage>) -> Option<(i32, Excess)> {
    let over = |limit: Option<usize>, of: fn(&Usage) -> u64| {
        let limit = limit? as u64;
        let each = leaders.iter().filter_map(|leader| Some((of(used.get(leader)?), *leader)));
        (each.clone().map(|(amount, _)| amount).sum::<u64>() > limit).then_some(())?;
        each.max().map(|(_, leader)| (leader, limit))
    };
    let memory = over(limits.memory, |usage| usage.memory)
        .map(|(leader, limit)| (leader, Excess::memory(limit, Some(tenant.clone()))));
    let processes = || {
        over(limits.processes, |usage| usage.processes)
            .map(|(leader, limit)| (leader, Excess::processes(limit, Some(tenant.clone()))))
    };
    memory.or_else(processes)
}

/// That a child counts for its tenant. Whoever owns the child ends it.
pub struct Charge {
    ceilings: Ceilings,
    limiter: Limiter,
    id: u64,
    origin: Origin,
    started_for: Option<TenantId>,
    /// Those of each of its processes, as it was started.
    limits: ProcessLimits,
    exceeded: watch::Receiver<Option<Excess>>,
}

impl Charge {
    /// The child is a tenant's from now on.
    pub fn adopt(&self, tenant: &TenantId, session: &str) {
        self.origin.adopt(tenant, session);
        if self.started_for.as_ref() == Some(tenant) {
            return;
        }
        if let Some(ceiling) = self.ceilings.0.tenants.get(tenant) {
            let lowered = self.limits.lowered(&ceiling.limits);
            if lowered != self.limits {
                self.limiter.set(lowered);
            }
        }
    }

    /// Waits until the child has to go, because its tenant's use more than they may.
    pub async fn exceeded(&self) -> Excess {
        let mut exceeded = self.exceeded.clone();
        loop {
            let found = exceeded.borrow_and_update().clone();
            match found {
                Some(excess) => return excess,
                // Once it counts no more there is nothing to wait for.
                None if exceeded.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        }
    }

    /// The limit of its tenant that the kernel ended it for, where it was that.
    pub fn ended_for(&self, exit: Exit) -> Option<Excess> {
        let tenant = self.started_for.as_ref().filter(|_| exit.out_of_memory() == Some(Whose::Tenant))?;
        let limit = self.ceilings.0.tenants.get(tenant)?.limits.memory?;
        Some(Excess::memory(limit as u64, Some(tenant.clone())))
    }

    /// The child is gone.
    pub fn end(&self) {
        self.ceilings.0.charged.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_largest_goes_and_of_equals_the_newest() {
        let tenant: TenantId = "acme".parse().unwrap();
        let usage = |memory, processes| Usage { memory, processes };
        let used = HashMap::from([(1, usage(10, 5)), (2, usage(30, 1)), (3, usage(20, 5)), (4, usage(1000, 1000))]);
        let over = |memory, processes| {
            let limits = Resources { memory, processes, ..Resources::default() };
            over(&tenant, &limits, &[1, 2, 3], &used).map(|(leader, excess)| (leader, excess.to_string()))
        };
        assert_eq!(over(Some(60), Some(11)), None);
        let (leader, text) = over(Some(59), None).unwrap();
        assert_eq!(leader, 2);
        assert!(text.contains("tenants.acme.limits.memory"), "{text}");
        let (leader, text) = over(None, Some(10)).unwrap();
        assert_eq!(leader, 3);
        assert!(text.contains("tenants.acme.limits.processes"), "{text}");
    }
}
