//! What one account holds, and how much more it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::exhausted::Exhausted;
use super::total::Total;

/// What one account holds.
#[derive(Debug)]
pub(super) struct Share {
    total: Arc<Total>,
    /// The bytes that the account holds.
    own: AtomicUsize,
    /// The account's own limit; `usize::MAX` without one.
    limit: AtomicUsize,
}

impl Share {
    pub(super) const fn new(total: Arc<Total>) -> Self {
        Self { total, own: AtomicUsize::new(0), limit: AtomicUsize::new(usize::MAX) }
    }

    pub(super) fn set_limit(&self, limit: Option<usize>) {
        self.limit.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The bytes that the account holds.
    pub(super) fn held(&self) -> usize {
        self.own.load(Ordering::Relaxed)
    }

    /// The most bytes that the account could hold if no other held any.
    pub(super) fn most(&self) -> usize {
        (self.total.limit() / 2).min(self.limit.load(Ordering::Relaxed))
    }

    /// Adds bytes, if the account then holds no more than is left for the others and than its own limit. The bytes are
    /// added first and checked then, so that the budget holds whatever others add at the same moment.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Exhausted> {
        if bytes == 0 {
            return Ok(());
        }
        let all = self.total.add(bytes);
        let own = self.own.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if own <= self.limit.load(Ordering::Relaxed) && own <= self.total.limit().saturating_sub(all) {
            return Ok(());
        }
        self.give_back(bytes);
        Err(if bytes > self.most() { Exhausted::TooLarge } else { Exhausted::Share })
    }

    /// Takes bytes away.
    pub(super) fn give_back(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.total.remove(bytes);
    }
}
