//! The claims that wait, and whose turn is next.
//!
//! Invariants: tenants take turns, and the principals of a tenant take its turns in turn; at most [`WAITING`] claims
//! wait, of which a tenant, and a principal, has what is left for the others.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::ceiling::{Ceiling, Limit};
use super::claimant::Claimant;
use super::counts::{Counts, Unit};
use crate::config::{Contenders, TenantId};

/// The largest number of claims that may wait, and so of queues.
pub(super) const WAITING: usize = 2048;

/// The queues of all tenants, whose claims wait for a `T`. The first tenant has its turn first.
#[derive(Debug)]
pub(super) struct Queues<T> {
    tenants: VecDeque<Turns<T>>,
    /// The claims that wait, by whose they are.
    slots: Counts,
}

/// The queues of one tenant, or of the gateway itself. The first queue has its turn first.
#[derive(Debug)]
struct Turns<T> {
    tenant: Option<TenantId>,
    queues: VecDeque<Queue<T>>,
}

/// The claims of one claimant that wait for the same ceilings, in the order of their arrival. Never empty.
#[derive(Debug)]
pub(super) struct Queue<T> {
    pub(super) claimant: Claimant,
    pub(super) limits: Vec<Limit>,
    waiting: VecDeque<Waiting<T>>,
}

/// A claim that waits, and the slot that it takes among those that may wait.
#[derive(Debug)]
struct Waiting<T> {
    grant: oneshot::Sender<T>,
    slot: Vec<Unit>,
}

/// The place of a queue: the tenant's place among the tenants, and the place among the tenant's queues.
pub(super) type Turn = (usize, usize);

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self { tenants: VecDeque::new(), slots: Counts::default() }
    }
}

impl<T> Queues<T> {
    /// Puts a claim into its queue. A new queue has its turn last among those of its tenant, and a tenant that has not
    /// waited has its turn last among the tenants. `None` if no more claims of the claimant may wait.
    pub(super) fn enqueue(
        &mut self,
        contenders: &Contenders,
        claimant: &Claimant,
        limits: &[Limit],
    ) -> Option<oneshot::Receiver<T>> {
        let slots = [(Ceiling::Waiting, WAITING)];
        if self.slots.full(contenders, claimant, &slots).is_some() {
            return None;
        }
        let slot = Unit::under(&slots, claimant);
        self.slots.take(&slot);
        let (grant, granted) = oneshot::channel();
        let waiting = Waiting { grant, slot };
        let mut queues = self.tenants.iter_mut().flat_map(|turns| &mut turns.queues);
        match queues.find(|queue| queue.is_for(claimant, limits)) {
            Some(queue) => queue.waiting.push_back(waiting),
            None => self.add(Queue {
                claimant: claimant.clone(),
                limits: limits.to_vec(),
                waiting: VecDeque::from([waiting]),
            }),
        }
        Some(granted)
    }

    fn add(&mut self, queue: Queue<T>) {
        match self.tenants.iter_mut().find(|turns| turns.tenant.as_ref() == queue.claimant.tenant()) {
            Some(turns) => turns.queues.push_back(queue),
            None => {
                let tenant = queue.claimant.tenant().cloned();
                self.tenants.push_back(Turns { tenant, queues: VecDeque::from([queue]) });
            }
        }
    }

    /// All queues in the order of their turns.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (Turn, &Queue<T>)> {
        let of_tenant = |(place, turns)| {
            let turns: &Turns<T> = turns;
            turns.queues.iter().enumerate().map(move |(inside, queue)| ((place, inside), queue))
        };
        self.tenants.iter().enumerate().flat_map(of_tenant)
    }

    /// Hands units to the first claim of a queue that still waits; the queue and its tenant then have their turns last.
    /// Returns the units if no claim of the queue waits any more.
    pub(super) fn serve(&mut self, (place, inside): Turn, units: T) -> Option<T> {
        let Some(mut turns) = self.tenants.remove(place) else { return Some(units) };
        let mut left = Some(units);
        if let Some(mut queue) = turns.queues.remove(inside) {
            while let Some(next) = left.is_some().then(|| queue.waiting.pop_front()).flatten() {
                self.slots.put_back(&next.slot);
                left = left.and_then(|units| next.grant.send(units).err());
            }
            if !queue.waiting.is_empty() {
                turns.queues.push_back(queue);
            }
        }
        let place = if left.is_none() { self.tenants.len() } else { place };
        if !turns.queues.is_empty() {
            self.tenants.insert(place, turns);
        }
        left
    }

    /// Removes the claims that nobody waits for any more from one queue.
    pub(super) fn tidy(&mut self, claimant: &Claimant, limits: &[Limit]) {
        for turns in &mut self.tenants {
            for queue in turns.queues.iter_mut().filter(|queue| queue.is_for(claimant, limits)) {
                queue.waiting.retain(|next| {
                    let has_left = next.grant.is_closed();
                    if has_left {
                        self.slots.put_back(&next.slot);
                    }
                    !has_left
                });
            }
            turns.queues.retain(|queue| !queue.waiting.is_empty());
        }
        self.tenants.retain(|turns| !turns.queues.is_empty());
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.slots.is_empty()
    }
}

impl<T> Queue<T> {
    fn is_for(&self, claimant: &Claimant, limits: &[Limit]) -> bool {
        self.claimant == *claimant && self.limits == limits
    }

    /// The number of claims that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
