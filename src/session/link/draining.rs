//! The children that a session had before the one that it has: kept as long as something of it is in flight on them.

use std::sync::Arc;

use crate::worker::Lease;

/// Replaced children that a session may have calls in flight on. With more it gets no other child: a client whose calls
/// never end would fill the pool by itself.
pub(in crate::session) const MOST: usize = 4;

/// Holds on children that are being replaced, or on their way out, the latest last.
#[derive(Default)]
pub(in crate::session) struct Predecessors(Vec<Arc<Lease>>);

impl Predecessors {
    pub(in crate::session) fn push(&mut self, lease: Arc<Lease>) {
        self.0.push(lease);
    }

    pub(in crate::session) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, the latest first.
    pub(in crate::session) fn latest_first(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.0.iter().rev()
    }

    /// Those whose capacity the next child inherits.
    pub(in crate::session) fn leaving(&self) -> Vec<Arc<Lease>> {
        self.0.iter().filter(|lease| lease.leaves_capacity()).cloned().collect()
    }

    /// Takes out those that nothing can come from any more.
    pub(in crate::session) fn take_over(&mut self) -> Vec<Arc<Lease>> {
        self.0.extract_if(.., |lease| lease.is_over()).collect()
    }

    /// On how many of them something of the session is in flight, as `is_idle` says it.
    pub(in crate::session) fn busy(&self, is_idle: fn(&Lease) -> bool) -> usize {
        self.0.iter().filter(|lease| lease.is_alive() && !is_idle(lease)).count()
    }
}
