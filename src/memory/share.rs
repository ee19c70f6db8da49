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
    /// Whether the account has a part of the budget for itself, which is its limit, and shares with nobody.
    is_reserve: bool,
}

impl Share {
    pub(super) const fn new(total: Arc<Total>) -> Self {
        Self { total, own: AtomicUsize::new(0), limit: AtomicUsize::new(usize::MAX), is_reserve: false }
    }

    /// The share of the account that has the reserve.
    pub(super) fn reserve(total: Arc<Total>) -> Self {
        Self { is_reserve: true, ..Self::new(total) }
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
        let limit = self.limit.load(Ordering::Relaxed);
        if self.is_reserve { limit } else { limit.min(self.total.shared() / 2) }
    }

    /// Adds bytes, if the account then holds no more than is left for the others and than its own limit. The bytes are
    /// added first and checked then, so that the budget holds whatever others add at the same moment.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Exhausted> {
        if bytes == 0 {
            return Ok(());
        }
        let own = self.own.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let left = match self.is_reserve {
            true => usize::MAX,
            false => self.total.shared().saturating_sub(self.total.add(bytes)),
        };
        let is_over_own = own > self.limit.load(Ordering::Relaxed);
        if !is_over_own && own <= left {
            return Ok(());
        }
        self.give_back(bytes);
        Err(match is_over_own && !self.is_reserve {
            _ if bytes > self.most() => Exhausted::TooLarge,
            true => Exhausted::Limit,
            false => Exhausted::Share,
        })
    }

    /// Takes bytes away.
    pub(super) fn give_back(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        if !self.is_reserve {
            self.total.remove(bytes);
        }
    }
}
