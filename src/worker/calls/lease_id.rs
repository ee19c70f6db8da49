//! The identity of one lease on a worker within the tables of the worker.

/// A lease on a worker: one session of those that use the child. Unique per worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub(in crate::worker) u64);
