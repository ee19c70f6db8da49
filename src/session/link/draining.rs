//! The draining leases of a link: children that have been replaced, or are about to exit, and still have work of this link.

use std::sync::Arc;

use crate::worker::Lease;

/// The number of draining children with work of the link above which the link gets no further child. Without this bound,
/// one client whose calls never end could fill the pool.
pub(super) const MAX_BUSY: usize = 4;

/// Leases on replaced children, in the order of their replacement.
#[derive(Default)]
pub(super) struct DrainingLeases(Vec<Arc<Lease>>);

impl DrainingLeases {
    /// Adds the lease on a child that is being replaced.
    pub(super) fn push(&mut self, lease: Arc<Lease>) {
        self.0.push(lease);
    }

    /// Whether there are no draining leases.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All leases, the most recently replaced child first.
    pub(super) fn latest_first(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.0.iter().rev()
    }

    /// The leases whose capacity the next child may inherit.
    pub(super) fn leaving(&self) -> Vec<Arc<Lease>> {
        self.0.iter().filter(|lease| lease.leaves_capacity()).cloned().collect()
    }

    /// Removes and returns the leases whose children can deliver nothing more to this link.
    pub(super) fn take_finished(&mut self) -> Vec<Arc<Lease>> {
        self.0.extract_if(.., |lease| lease.is_over()).collect()
    }

    /// The number of living children with work of this link, as decided by `is_idle`.
    pub(super) fn busy(&self, is_idle: fn(&Lease) -> bool) -> usize {
        self.0.iter().filter(|lease| lease.is_alive() && !is_idle(lease)).count()
    }
}
