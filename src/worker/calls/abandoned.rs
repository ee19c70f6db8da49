//! What the child may still work for though no call of it is in flight: calls that were given up, and tasks. Whoever they
//! are for, gone or not, may be the cause of what the child says.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::lease_id::LeaseId;
use super::numbers::Number;

#[derive(Debug)]
struct Work {
    peer: LeaseId,
    /// The how-manyth request it was begun by.
    order: u64,
    until: Instant,
    /// How long it is believed to go on without a sign of life.
    patience: Duration,
}

/// Work that nobody waits for, by the number of the call that began it. It counts until the child says that it is over,
/// or has not been heard of for as long as a call may take, or as `limits.cancel_grace` says of one that was cancelled. Bounded in number: while more than that would count, nobody
/// can tell whom anything is for.
#[derive(Debug)]
pub(super) struct Lingering {
    works: BTreeMap<u64, Work>,
    capacity: usize,
    /// When the last of those that are not remembered no longer counts.
    crowded_until: Option<Instant>,
}

impl Lingering {
    pub(super) fn new(capacity: usize) -> Self {
        Self { works: BTreeMap::new(), capacity, crowded_until: None }
    }

    pub(super) fn insert(&mut self, number: Number, peer: LeaseId, now: Instant, patience: Duration) {
        let work = Work { peer, order: number.order, until: now + patience, patience };
        self.works.insert(number.wire, work);
        if self.works.len() > self.capacity
            && let Some(oldest) = self.works.iter().min_by_key(|(_, work)| work.order).map(|(number, _)| *number)
            && let Some(oldest) = self.works.remove(&oldest)
        {
            self.crowded_until = self.crowded_until.max(Some(oldest.until));
        }
    }

    /// The child has shown that it still works for it.
    pub(super) fn renew(&mut self, number: u64, now: Instant) {
        if let Some(work) = self.works.get_mut(&number) {
            work.until = now + work.patience;
        }
    }

    /// Whether the child may still speak of it.
    pub(super) fn has(&self, number: u64) -> bool {
        self.works.contains_key(&number)
    }

    /// Whom the child still works for with this, how long it is believed to, and the whole number.
    pub(super) fn of(&self, wire: u64) -> Option<(LeaseId, Duration, Number)> {
        self.works.get(&wire).map(|work| (work.peer, work.patience, Number { wire, order: work.order }))
    }

    /// It is over.
    pub(super) fn remove(&mut self, number: u64) {
        self.works.remove(&number);
    }

    /// Forgets what has not been heard of for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.works.retain(|_, work| work.until > now);
        self.crowded_until = self.crowded_until.filter(|until| *until > now);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.works.is_empty() && self.crowded_until.is_none()
    }

    /// Whom the child may still work for; `None` if nobody can tell.
    pub(super) fn peers(&self, now: Instant) -> Option<impl Iterator<Item = LeaseId>> {
        let is_crowded = self.crowded_until.is_some_and(|until| until > now);
        let works = self.works.values().filter(move |work| work.until > now);
        (!is_crowded).then(|| works.map(|work| work.peer))
    }
}
