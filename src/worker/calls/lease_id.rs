//! The leases on a child: their ids, and the state that the tables keep of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Held, Holdings};

/// A lease on a worker: one session of those that use the child. Unique per worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub(in crate::worker) u64);

/// The leases on a child.
pub(super) type Leases = BTreeMap<LeaseId, LeaseState>;

/// The state of one lease.
#[derive(Debug, Default)]
pub(super) struct LeaseState {
    /// Whether the session has another child, and keeps this one for what is in flight.
    pub(super) is_leaving: bool,
    /// The number of answers that the session waits for.
    pub(super) in_flight: usize,
    /// When the session took the lease, made a call, or got an answer, whichever came last; `None` before the first.
    pub(super) used: Option<Instant>,
    /// What the session's tenant and principal hold of a shared child.
    pub(super) holdings: Holdings,
}

impl LeaseState {
    /// Counts one more answer that the session waits for.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.in_flight, self.used) = (self.in_flight + 1, Some(now));
        self.holdings.begin();
    }

    /// Counts one answer less that the session waits for.
    pub(super) fn end(&mut self) {
        let one = self.in_flight.min(1);
        self.in_flight -= one;
        self.holdings.end(one);
    }

    /// The answers that the parties with rivals wait for, outermost first, and at last the session.
    pub(super) fn waits(&self) -> impl Iterator<Item = usize> {
        self.holdings.counted(|held| held.calls(), self.in_flight)
    }

    /// Whether the session is one of this party.
    pub(super) fn is_of(&self, party: &Arc<Held>) -> bool {
        self.holdings.all().any(|held| Arc::ptr_eq(held, party))
    }
}
