//! The living children of all pools, and the choice among the idle ones where somebody needs room: first those without a
//! session; then those of the tenant with the most children, of its principal with the most, the longest idle.
//!
//! Invariant: a child with anything in flight, a task, a question to a client or a subscription is never ended here.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::child::PooledWorker;
use super::holder::TenantKey;
use crate::process::Owner;
use crate::worker::Due;

/// The largest number of idle children that are ended at once.
const AT_ONCE: usize = 64;

/// The living children of all pools; cheap to clone.
#[derive(Clone, Default)]
pub struct Children(Arc<State>);

#[derive(Default)]
struct State {
    /// The children by their addresses.
    living: Mutex<HashMap<usize, Weak<PooledWorker>>>,
    /// The time after which an idle child is ended though nobody needs its room. `None`: never.
    idle_timeout: Mutex<Option<Duration>>,
}

/// A child, with what it is chosen by. Read once: a spare may be taken for a tenant at any moment.
struct Candidate {
    child: Arc<PooledWorker>,
    tenant: TenantKey,
    /// The owner of the first lease; `None` for a spare.
    owner: Option<Owner>,
    last_used: Instant,
}

/// The numbers of living children that are not about to end.
#[derive(Default)]
struct Held {
    /// The children of each tenant.
    tenants: HashMap<TenantKey, usize>,
    /// The children of each owner. A spare counts for none.
    owners: HashMap<(TenantKey, Owner), usize>,
}

impl Children {
    /// Sets the time after which an idle child is ended though nobody needs its room; `None`: never.
    pub(super) fn set_idle_timeout(&self, timeout: Option<Duration>) {
        *self.0.idle_timeout.lock() = timeout;
    }

    /// Adds a child that has just started.
    pub(super) fn add(&self, child: &Arc<PooledWorker>) {
        self.0.living.lock().insert(Arc::as_ptr(child).addr(), Arc::downgrade(child));
    }

    /// Removes a child that has ended.
    pub(super) fn remove(&self, child: &Arc<PooledWorker>) {
        self.0.living.lock().remove(&Arc::as_ptr(child).addr());
    }

    /// Ends idle children among those that `of` accepts, until `wanted` children are ending, or no other is idle. `due`
    /// says for whom. The caller holds no lock of a pool.
    pub(super) fn make_room(&self, of: impl Fn(&PooledWorker) -> bool, wanted: usize, due: Due) {
        let children: Vec<_> = self.0.living.lock().values().filter_map(Weak::upgrade).collect();
        let children: Vec<_> = children.into_iter().filter(|child| of(child)).collect();
        let (ending, staying): (Vec<_>, Vec<_>) = children.into_iter().partition(|child| child.is_ending());
        let missing = wanted.saturating_sub(ending.len()).min(AT_ONCE);
        if missing == 0 {
            return;
        }
        let staying: Vec<_> = staying.into_iter().map(Candidate::of).collect();
        let mut held = Held::default();
        staying.iter().for_each(|candidate| held.count(candidate, |count| count + 1));
        let mut idle: Vec<_> = staying.into_iter().filter(|candidate| candidate.child.is_idle()).collect();
        for _ in 0..missing {
            while let Some(next) = take_first(&mut idle, &held) {
                if next.child.worker.give_up_idle(due) {
                    held.count(&next, |count| count.saturating_sub(1));
                    break;
                }
            }
        }
    }

    /// Ends those of the `children` that have been idle for longer than the configuration allows.
    pub(super) fn end_overdue(&self, children: &[Arc<PooledWorker>]) {
        let Some(timeout) = *self.0.idle_timeout.lock() else { return };
        let is_overdue = |child: &&Arc<PooledWorker>| child.worker.last_used().elapsed() >= timeout;
        let is_leased = |child: &&Arc<PooledWorker>| child.worker.sessions() > 0;
        for child in children.iter().filter(is_leased).filter(is_overdue).filter(|child| child.is_idle()) {
            child.worker.give_up_idle(Due::ChildIdleTimeout);
        }
    }
}

impl Candidate {
    fn of(child: Arc<PooledWorker>) -> Self {
        let (tenant, owner, last_used) = (child.worker.tenant(), child.owner.get().cloned(), child.worker.last_used());
        Self { child, tenant, owner, last_used }
    }
}

impl Held {
    /// Changes the numbers that a child counts in.
    fn count(&mut self, candidate: &Candidate, change: impl Fn(usize) -> usize) {
        let Candidate { tenant, owner, .. } = candidate;
        let of_tenant = self.tenants.entry(tenant.clone()).or_default();
        *of_tenant = change(*of_tenant);
        if let Some(owner) = owner {
            let of_owner = self.owners.entry((tenant.clone(), owner.clone())).or_default();
            *of_owner = change(*of_owner);
        }
    }

    /// The numbers of children of a child's tenant, and of its owner.
    fn of(&self, Candidate { tenant, owner, .. }: &Candidate) -> (usize, usize) {
        let of_owner = owner.clone().and_then(|owner| self.owners.get(&(tenant.clone(), owner)));
        (self.tenants.get(tenant).copied().unwrap_or_default(), of_owner.copied().unwrap_or_default())
    }
}

/// Removes and returns the idle child that goes first.
fn take_first(idle: &mut Vec<Candidate>, held: &Held) -> Option<Candidate> {
    let weight = |idle: &Candidate| {
        let is_unused = idle.child.worker.sessions() == 0;
        let (of_tenant, of_owner) = held.of(idle);
        (is_unused, of_tenant, of_owner, Reverse(idle.last_used))
    };
    let first = idle.iter().enumerate().max_by_key(|(_, idle)| weight(idle)).map(|(place, _)| place)?;
    Some(idle.swap_remove(first))
}
