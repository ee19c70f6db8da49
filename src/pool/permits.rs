//! Permits for capacity that is limited: children of a server, children of a tenant, starts under way, sessions.
//!
//! A claim takes one unit under several ceilings as a whole: while one of them is full, the claim holds nothing of the
//! others. Claims that wait are served in turns by tenant, at most 1024 wait in one queue, and each waits for a limited
//! time.
//!
//! Invariant: no claim waits for which there is room, and no ceiling is exceeded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::auth::Principal;
use crate::config::{ServerName, TenantId};
use crate::worker::DropGuard;

#[cfg(test)]
mod tests;

/// The largest number of claims that may wait in one queue.
const QUEUE: usize = 1024;

/// The tenant that a child is for; `None` for a spare, and for a child that all tenants share.
pub(super) type TenantKey = Option<TenantId>;

/// Something of which there is a limited number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Ceiling {
    /// The children of a tenant (`tenants.NAME.limits.max_children`), or its sessions (`tenants.NAME.max_sessions`).
    /// Children and sessions have permits of their own.
    Tenant(TenantId),
    /// The sessions of a principal (`sessions.max_per_principal`).
    Principal(Principal),
    /// All sessions (`sessions.max`).
    Sessions,
    /// The children of a server (`pool.max_children`).
    Server(ServerName),
    /// Starts of children under way, over all servers (`children.spawn_concurrency`).
    Starts,
    /// Starts of spares under way, over all servers: half of `children.spawn_concurrency`.
    SpareStarts,
}

/// One ceiling, and the largest number of units that may be taken under it.
pub(crate) type Limit = (Ceiling, usize);

/// Permits for the children of a gateway, or for its sessions; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Units taken under each ceiling; without those of which none are taken.
    taken: HashMap<Ceiling, usize>,
    /// The queues that claims wait in. The first has its turn first.
    queues: VecDeque<Queue>,
}

/// The claims of one tenant that wait for the same ceilings, in the order of their arrival.
#[derive(Debug)]
struct Queue {
    tenant: TenantKey,
    limits: Vec<Limit>,
    waiting: VecDeque<oneshot::Sender<Claim>>,
}

/// One unit under each of some ceilings. Dropped, the units go to claims that wait.
#[derive(Debug)]
pub(crate) struct Claim {
    permits: Permits,
    held: Vec<Ceiling>,
}

impl Permits {
    /// Claims one unit under each ceiling, if there is room under all of them now. A waiting claim is never overtaken
    /// by this: there is no room for any claim that waits.
    ///
    /// # Errors
    /// The first of the limits that is reached.
    pub(crate) fn try_claim(&self, limits: &[Limit]) -> Result<Claim, Limit> {
        self.0.lock().take(limits).map(|()| self.claimed(limits))
    }

    /// Claims one unit under each ceiling, as soon as there is room under all of them at the same moment.
    ///
    /// # Errors
    /// There was no such moment for as long as `patience`, or the queue is full. Returned is the first of the `limits`
    /// that is reached at the end, or else the one that was reached at the beginning.
    pub(super) async fn claim(&self, tenant: &TenantKey, limits: &[Limit], patience: Duration) -> Result<Claim, Limit> {
        let (full, granted) = {
            let mut state = self.0.lock();
            let Err(full) = state.take(limits) else { return Ok(self.claimed(limits)) };
            let Some(granted) = state.enqueue(tenant, limits) else { return Err(full) };
            (full, granted)
        };
        let _leaving = DropGuard::new(|| self.0.lock().tidy(tenant, limits));
        let granted = timeout(patience, granted).await;
        granted.ok().and_then(Result::ok).ok_or_else(|| self.full(limits).unwrap_or(full))
    }

    /// The first of these limits that is reached; `None` if there is room under all of them.
    pub(crate) fn full(&self, limits: &[Limit]) -> Option<Limit> {
        self.0.lock().full(limits)
    }

    /// The number of claims that wait for this ceiling. A claim waits for the first of its ceilings that is full.
    pub(super) fn waiting_for(&self, ceiling: &Ceiling) -> usize {
        let state = self.0.lock();
        let waits = |queue: &&Queue| state.full(&queue.limits).is_some_and(|full| full.0 == *ceiling);
        state.queues.iter().filter(waits).map(|queue| queue.waiting.len()).sum()
    }

    fn claimed(&self, limits: &[Limit]) -> Claim {
        Claim { permits: self.clone(), held: limits.iter().map(|(ceiling, _)| ceiling.clone()).collect() }
    }

    /// Gives units back, and serves the claims for which there is room now, queue by queue in turns.
    fn release(&self, units: &mut Vec<Ceiling>) {
        let mut state = self.0.lock();
        state.put_back(units);
        let mut turn = 0;
        while let Some(limits) = state.queues.get(turn).map(|queue| queue.limits.clone()) {
            if state.take(&limits).is_err() {
                turn += 1;
                continue;
            }
            let Some(mut queue) = state.queues.remove(turn) else { return };
            if let Some(mut claim) = queue.serve(self.claimed(&limits)) {
                // Emptied here: its own drop would lock the state again.
                state.put_back(&mut claim.held);
            }
            if !queue.waiting.is_empty() {
                state.queues.push_back(queue);
            }
        }
    }
}

impl State {
    fn full(&self, limits: &[Limit]) -> Option<Limit> {
        let taken = |ceiling: &Ceiling| self.taken.get(ceiling).copied().unwrap_or_default();
        limits.iter().find(|(ceiling, most)| taken(ceiling) >= *most).cloned()
    }

    /// Takes a unit under each ceiling, or none if one is full.
    ///
    /// # Errors
    /// The first of the limits that is reached.
    fn take(&mut self, limits: &[Limit]) -> Result<(), Limit> {
        if let Some(full) = self.full(limits) {
            return Err(full);
        }
        for (ceiling, _) in limits {
            *self.taken.entry(ceiling.clone()).or_default() += 1;
        }
        Ok(())
    }

    fn put_back(&mut self, units: &mut Vec<Ceiling>) {
        for unit in units.drain(..) {
            if let Some(taken) = self.taken.get_mut(&unit) {
                *taken -= 1;
                if *taken == 0 {
                    self.taken.remove(&unit);
                }
            }
        }
    }

    /// Puts a claim into its queue. A new queue has its turn last. `None` if the queue is full.
    fn enqueue(&mut self, tenant: &TenantKey, limits: &[Limit]) -> Option<oneshot::Receiver<Claim>> {
        let (grant, granted) = oneshot::channel();
        match self.queues.iter_mut().find(|queue| queue.is_for(tenant, limits)) {
            Some(queue) if queue.waiting.len() >= QUEUE => return None,
            Some(queue) => queue.waiting.push_back(grant),
            None => {
                let (tenant, limits, waiting) = (tenant.clone(), limits.to_vec(), [grant].into());
                self.queues.push_back(Queue { tenant, limits, waiting });
            }
        }
        Some(granted)
    }

    /// Removes the claims that nobody waits for any more from one queue.
    fn tidy(&mut self, tenant: &TenantKey, limits: &[Limit]) {
        self.queues.retain_mut(|queue| {
            if queue.is_for(tenant, limits) {
                queue.waiting.retain(|grant| !grant.is_closed());
            }
            !queue.waiting.is_empty()
        });
    }
}

impl Queue {
    fn is_for(&self, tenant: &TenantKey, limits: &[Limit]) -> bool {
        self.tenant == *tenant && self.limits == limits
    }

    /// Hands units to the first claim that still waits, and returns them if none does.
    fn serve(&mut self, mut units: Claim) -> Option<Claim> {
        while let Some(next) = self.waiting.pop_front() {
            match next.send(units) {
                Ok(()) => return None,
                Err(refused) => units = refused,
            }
        }
        Some(units)
    }
}

impl Claim {
    /// Whether the claim holds a unit under this ceiling.
    pub(super) fn holds(&self, ceiling: &Ceiling) -> bool {
        self.held.contains(ceiling)
    }

    /// Takes over the units of another claim. A unit under a ceiling that both hold goes back.
    pub(super) fn merge(&mut self, mut other: Self) {
        let units = std::mem::take(&mut other.held).into_iter();
        let (twice, missing): (Vec<_>, Vec<_>) = units.partition(|unit| self.holds(unit));
        other.held = twice;
        self.held.extend(missing);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.permits.clone().release(&mut self.held);
        }
    }
}
