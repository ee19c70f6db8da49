//! The leases on a child: their ids, and the state that the tables keep of each.

use std::collections::BTreeMap;

use tokio::time::Instant;

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
}
