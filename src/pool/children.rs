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

/// An idle child, with what it is chosen by.
struct Idle {
    child: Arc<PooledWorker>,
    tenant: TenantKey,
    owner: Option<Owner>,
    last_used: Instant,
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
        let mut held: HashMap<(TenantKey, Option<Owner>), usize> = HashMap::new();
        for child in &staying {
            let tenant = child.worker.tenant();
            *held.entry((tenant.clone(), None)).or_default() += 1;
            *held.entry((tenant, child.owner.get().cloned())).or_default() += 1;
        }
        let mut idle: Vec<_> = staying.into_iter().filter_map(Idle::of).collect();
        for _ in 0..missing {
            while let Some(next) = take_first(&mut idle, &held) {
                if next.child.worker.give_up_idle(due) {
                    let keys = [(next.tenant.clone(), None), (next.tenant, next.owner)];
                    keys.into_iter().for_each(|key| *held.entry(key).or_default() -= 1);
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

impl Idle {
    /// What a child is chosen by; `None` if the child is not idle, or is kept all the same.
    fn of(child: Arc<PooledWorker>) -> Option<Self> {
        let (tenant, owner, last_used) = (child.worker.tenant(), child.owner.get().cloned(), child.worker.last_used());
        child.is_idle().then_some(Self { child, tenant, owner, last_used })
    }
}

/// Removes and returns the idle child that goes first. `held` is the number of children of each tenant, and of each of
/// its owners.
fn take_first(idle: &mut Vec<Idle>, held: &HashMap<(TenantKey, Option<Owner>), usize>) -> Option<Idle> {
    let count = |tenant: &TenantKey, owner: Option<&Owner>| {
        held.get(&(tenant.clone(), owner.cloned())).copied().unwrap_or_default()
    };
    let weight = |idle: &Idle| {
        let by_owner = count(&idle.tenant, idle.owner.as_ref());
        let is_unused = idle.child.worker.sessions() == 0;
        (is_unused, count(&idle.tenant, None), by_owner, Reverse(idle.last_used))
    };
    let first = idle.iter().enumerate().max_by_key(|(_, idle)| weight(idle)).map(|(place, _)| place)?;
    Some(idle.swap_remove(first))
}
