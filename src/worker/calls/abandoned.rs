//! Cancelled and timed-out calls, and tasks, that a shared child may still be processing. They are needed to attribute what the
//! child sends without being asked.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::lease_id::LeaseId;
use super::numbers::Number;

#[derive(Debug)]
struct Work {
    peer: LeaseId,
    /// The position of the call among all calls of the child.
    order: u64,
    until: Instant,
    /// The time without a sign of life after which the call no longer counts.
    patience: Duration,
}

/// Abandoned calls, by the number of each call. An entry counts until the child says that the call is over, or has sent
/// nothing about the call for the time-out of the call (`limits.cancel_grace` for a cancelled call). Holds at most `capacity` entries:
/// while an entry that was dropped would still count, no message can be attributed.
#[derive(Debug)]
pub(super) struct AbandonedCalls {
    works: BTreeMap<u64, Work>,
    capacity: usize,
    /// When the last of those that are not remembered no longer counts.
    crowded_until: Option<Instant>,
}

impl AbandonedCalls {
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

    /// The child has sent progress of the call: the call counts for its time again.
    pub(super) fn renew(&mut self, number: u64, now: Instant) {
        if let Some(work) = self.works.get_mut(&number) {
            work.until = now + work.patience;
        }
    }

    /// Whether the call with this number is abandoned and still counts.
    pub(super) fn has(&self, number: u64) -> bool {
        self.works.contains_key(&number)
    }

    /// The session, the time without a sign of life after which the entry expires, and the number of an abandoned call.
    pub(super) fn of(&self, wire: u64) -> Option<(LeaseId, Duration, Number)> {
        self.works.get(&wire).map(|work| (work.peer, work.patience, Number { wire, order: work.order }))
    }

    /// Removes the call: the child has said that it is over.
    pub(super) fn remove(&mut self, number: u64) {
        self.works.remove(&number);
    }

    /// Removes the calls whose time is over.
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
