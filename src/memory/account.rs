//! The account of one holder: a tenant, those who are not authenticated, or a server whose children belong to nobody.

use std::sync::Arc;

use bytes::Bytes;

use super::charge::Charge;
use super::exhausted::Exhausted;
use super::held;
use super::share::Share;

/// The handle of an account; cheap to clone.
#[derive(Debug, Clone)]
pub struct Account(pub(super) Arc<Share>);

impl Account {
    /// The bytes that the account holds.
    pub fn held(&self) -> usize {
        self.0.held()
    }

    /// The most bytes that the account could hold if no other held any: half of what all accounts share, or its own
    /// limit.
    pub fn most(&self) -> usize {
        self.0.most()
    }

    /// Sets the account's own limit in bytes. `None`: only what is left for the others. What is held already stays.
    pub fn set_limit(&self, limit: Option<usize>) {
        self.0.set_limit(limit);
    }

    /// A charge of no bytes, which can grow.
    pub fn open(&self) -> Charge {
        Charge::none(Arc::clone(&self.0))
    }

    /// Charges `bytes` bytes, for as long as the charge exists. Zero bytes are never refused.
    ///
    /// # Errors
    /// The account would hold more than is left for the others, or more than its own limit.
    pub fn charge(&self, bytes: usize) -> Result<Charge, Exhausted> {
        let mut charge = self.open();
        charge.grow(bytes).map(|()| charge)
    }

    /// Charges what the bytes hold of memory until their last clone or slice is dropped. The memory that counts is
    /// `capacity`: that of the whole allocation that the bytes keep, which may be more than their length.
    ///
    /// # Errors
    /// As of [`charge`](Self::charge). The bytes are dropped.
    pub fn hold(&self, bytes: Bytes, capacity: usize) -> Result<Bytes, Exhausted> {
        let charge = self.charge(capacity.max(bytes.len()).saturating_add(held::OVERHEAD))?;
        Ok(held::holding(bytes, charge))
    }
}
