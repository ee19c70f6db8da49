//! The sum over all accounts that share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The part of a budget that is kept for connections, in bytes.
pub(super) const fn reserve(budget: usize) -> usize {
    budget / 4
}

/// The budget of which accounts share `part` bytes.
pub(super) const fn whole(part: usize) -> usize {
    part / 3 * 4
}

/// The budget, and how much of it is held.
#[derive(Debug)]
pub(super) struct Total {
    /// The budget, in bytes.
    limit: AtomicUsize,
    /// The bytes that all accounts hold which share.
    held: AtomicUsize,
}

impl Total {
    /// A budget of `limit` bytes, of which nothing is held.
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), held: AtomicUsize::new(0) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The part of the budget that accounts share, in bytes.
    pub(super) fn shared(&self) -> usize {
        let limit = self.limit();
        limit - reserve(limit)
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Adds bytes, and returns the sum over all accounts that share after that.
    pub(super) fn add(&self, bytes: usize) -> usize {
        self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// Takes bytes away.
    pub(super) fn remove(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}
