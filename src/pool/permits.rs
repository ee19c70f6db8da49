//! Places for children, of which there are so many, and the queue for them: fair between tenants, bounded for each, and with
//! an end to the waiting. Such are those under a pool's ceiling, and the turns in which children are started.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::TenantId;

/// How many of one tenant may wait for a place: what one has queued is no other's trouble.
const QUEUE: usize = 1024;

/// For whom a child is: a tenant, or none.
pub(super) type Whose = Option<TenantId>;

#[derive(Debug, Default)]
struct State {
    taken: usize,
    waiting: BTreeMap<Whose, VecDeque<oneshot::Sender<Slot>>>,
    /// Whose turn it is: each tenant that waits is in here once.
    turns: VecDeque<Whose>,
    queued: usize,
}

/// So many places; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    state: Arc<Mutex<State>>,
    max: usize,
}

/// A place for one child; dropped, it goes to the next who waits.
#[derive(Debug)]
pub(super) struct Slot(Option<Slots>);

impl Slots {
    pub(super) fn new(max: usize) -> Self {
        Self { state: Arc::default(), max }
    }

    /// A place, if there is one and nobody waits for it.
    pub(super) fn try_take(&self) -> Option<Slot> {
        let mut state = self.state.lock();
        if state.taken >= self.max || state.queued > 0 {
            return None;
        }
        state.taken += 1;
        Some(Slot(Some(self.clone())))
    }

    /// Waits for a place; `None` when it takes too long, or too many of the tenant wait already.
    pub(super) async fn take(&self, tenant: &Whose, patience: Duration) -> Option<Slot> {
        let granted = {
            let mut state = self.state.lock();
            if state.taken < self.max && state.queued == 0 {
                state.taken += 1;
                return Some(Slot(Some(self.clone())));
            }
            let queue = state.waiting.entry(tenant.clone()).or_default();
            if queue.len() >= QUEUE {
                return None;
            }
            let (grant, granted) = oneshot::channel();
            queue.push_back(grant);
            if !state.turns.contains(tenant) {
                state.turns.push_back(tenant.clone());
            }
            state.queued += 1;
            granted
        };
        let _left = Left { slots: self, tenant };
        let outcome = timeout(patience, granted).await;
        outcome.ok()?.ok()
    }

    /// Forgets who waits no more.
    fn forget_left(&self, tenant: &Whose) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(queue) = state.waiting.get_mut(tenant) else { return };
        let before = queue.len();
        queue.retain(|grant| !grant.is_closed());
        state.queued -= before - queue.len();
        if queue.is_empty() {
            state.waiting.remove(tenant);
            state.turns.retain(|turn| turn != tenant);
        }
    }

    /// Whether all places are taken.
    pub(super) fn is_full(&self) -> bool {
        self.state.lock().taken >= self.max
    }

    /// How many wait.
    pub(super) fn queued(&self) -> usize {
        self.state.lock().queued
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.state.lock().taken
    }

    /// Gives a place that became free to the tenant whose turn it is.
    fn pass_on(&self) {
        let mut state = self.state.lock();
        while let Some(tenant) = state.turns.pop_front() {
            let Some(queue) = state.waiting.get_mut(&tenant) else { continue };
            let next = queue.pop_front();
            if queue.is_empty() {
                state.waiting.remove(&tenant);
            } else {
                state.turns.push_back(tenant);
            }
            let Some(next) = next else { continue };
            state.queued -= 1;
            // Whoever gave up waiting is passed over; the place must not be dropped while the lock is held.
            match next.send(Slot(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut slot) => slot.0 = None,
            }
        }
        state.taken -= 1;
    }
}

/// Dropped when someone waits no more, with or without a place.
struct Left<'a> {
    slots: &'a Slots,
    tenant: &'a Whose,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.slots.forget_left(self.tenant);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(slots) = self.0.take() {
            slots.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn tenant(name: &str) -> Whose {
        Some(name.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_ceiling_holds_and_waiting_ends() {
        let slots = Slots::new(2);
        let (a, b) = (slots.try_take().unwrap(), slots.try_take().unwrap());
        assert!(slots.try_take().is_none());
        assert!(slots.take(&tenant("t"), Duration::from_secs(1)).await.is_none());
        assert_eq!(slots.queued(), 0, "whoever gave up waits no more");
        drop(a);
        assert_eq!(slots.taken(), 1, "whoever gave up gets no place");
        assert_eq!(slots.queued(), 0);
        drop(b);
        assert_eq!(slots.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns() {
        let slots = Slots::new(1);
        let first = slots.try_take().unwrap();
        let (order, mut served) = tokio::sync::mpsc::channel(16);
        for name in ["a", "a", "a", "b", "c"] {
            let (slots, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let slot = slots.take(&tenant(name), LONG).await;
                order.send(name).await.unwrap();
                drop(slot);
            });
            tokio::task::yield_now().await;
        }
        drop(first);
        let mut names = Vec::new();
        for _ in 0..5 {
            names.push(served.recv().await.unwrap());
        }
        assert_eq!(names, ["a", "b", "c", "a", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_of_a_tenant_wait_and_the_next_is_told_at_once() {
        let slots = Slots::new(1);
        let first = slots.try_take().unwrap();
        let wait = |name: &'static str| {
            let slots = slots.clone();
            tokio::spawn(async move { slots.take(&tenant(name), LONG).await.is_some() })
        };
        let mut waiting: Vec<_> = (0..QUEUE).map(|_| wait("many")).collect();
        while slots.queued() < QUEUE {
            tokio::task::yield_now().await;
        }
        let now = tokio::time::Instant::now();
        assert!(slots.take(&tenant("many"), LONG).await.is_none());
        assert_eq!(now.elapsed(), Duration::ZERO);
        waiting.push(wait("another"));
        while slots.queued() <= QUEUE {
            tokio::task::yield_now().await;
        }
        drop(first);
        for waits in waiting {
            assert!(waits.await.unwrap());
        }
        assert_eq!((slots.taken(), slots.queued()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_granted_to_one_who_left_is_not_lost() {
        let slots = Slots::new(1);
        let first = slots.try_take().unwrap();
        let left = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(&tenant("t"), LONG).await.is_some() }
        });
        tokio::task::yield_now().await;
        left.abort();
        let _ = left.await;
        drop(first);
        assert!(slots.try_take().is_some());
    }
}
