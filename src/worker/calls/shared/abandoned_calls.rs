//! Cancelled and timed-out calls, and tasks, that a shared child may still be processing.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::worker::calls::{LeaseId, Number, insert_bounded};

#[derive(Debug)]
struct Abandoned {
    peer: LeaseId,
    number: Number,
    until: Instant,
    /// The time without a sign of life after which the call no longer counts.
    patience: Duration,
}

/// Abandoned calls, by the number of each call. They are needed to attribute messages of the child that belong to no
/// call. An entry counts until the child says that the call is over, or has sent nothing about the call for its
/// patience: the time-out of the call, or `limits.cancel_grace`. Holds at most `capacity` entries: while a dropped
/// entry would still count, no message can be attributed.
#[derive(Debug)]
pub(in crate::worker::calls) struct AbandonedCalls {
    calls: BTreeMap<u64, Abandoned>,
    capacity: usize,
    /// When the last of the dropped entries no longer counts.
    dropped_until: Option<Instant>,
}

impl AbandonedCalls {
    pub(super) fn new(capacity: usize) -> Self {
        Self { calls: BTreeMap::new(), capacity, dropped_until: None }
    }

    /// Adds a call, or lets it count for its patience again. The oldest call is dropped beyond the capacity.
    pub(super) fn insert(&mut self, number: Number, peer: LeaseId, now: Instant, patience: Duration) {
        let call = (number.wire, Abandoned { peer, number, until: now + patience, patience });
        let dropped = insert_bounded(&mut self.calls, self.capacity, call, |call| call.number.order);
        self.dropped_until = self.dropped_until.max(dropped.map(|call| call.until));
    }

    /// Lets a call count for its patience again: the child has sent progress of the call.
    pub(in crate::worker::calls) fn renew(&mut self, number: u64, now: Instant) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.until = now + call.patience;
        }
    }

    /// Whether the call with this number is in the table.
    pub(in crate::worker::calls) fn has(&self, number: u64) -> bool {
        self.calls.contains_key(&number)
    }

    /// The session, the patience and the number of an abandoned call.
    pub(in crate::worker::calls) fn get(&self, wire: u64) -> Option<(LeaseId, Duration, Number)> {
        self.calls.get(&wire).map(|call| (call.peer, call.patience, call.number))
    }

    /// Removes a call: the child has said that the call is over.
    pub(in crate::worker::calls) fn remove(&mut self, number: u64) {
        self.calls.remove(&number);
    }

    /// Removes the calls whose time is over.
    pub(in crate::worker::calls) fn expire(&mut self, now: Instant) {
        self.calls.retain(|_, call| call.until > now);
        self.dropped_until = self.dropped_until.filter(|until| *until > now);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.dropped_until.is_none()
    }

    /// The sessions that the child may still work for; `None` while a dropped entry would count.
    pub(super) fn peers(&self, now: Instant) -> Option<impl Iterator<Item = LeaseId>> {
        let is_known = self.dropped_until.is_none_or(|until| until <= now);
        let calls = self.calls.values().filter(move |call| call.until > now);
        is_known.then(|| calls.map(|call| call.peer))
    }
}
