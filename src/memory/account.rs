//! The account of one holder: a tenant, those who are not authenticated, or a server whose children belong to nobody.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::charge::Charge;
use super::exhausted::Exhausted;
use super::held;
use super::share::Share;
use super::text::Text;
use super::total::Total;

/// The handle of an account; cheap to clone.
#[derive(Debug, Clone)]
pub struct Account(pub(super) Arc<Share>);

impl Account {
    /// An account without a limit, of a budget of its own: for tests, and for those who serve one client.
    pub fn unlimited() -> Self {
        Self(Arc::new(Share::new(Arc::new(Total::new(usize::MAX)))))
    }

    /// A copy of a text, charged until its last clone is dropped.
    ///
    /// # Errors
    /// As of [`charge`](Self::charge). Nothing has been copied.
    pub fn text(&self, text: &str) -> Result<Text, Exhausted> {
        Ok(Text::new(text, self.charge(text.len().saturating_add(held::OVERHEAD))?))
    }

    /// Whether both are handles of the same account.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

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

    /// The buffer as bytes, charged with the capacity of the buffer until their last clone or slice is dropped.
    ///
    /// # Errors
    /// As of [`charge`](Self::charge). The buffer is dropped.
    pub fn freeze(&self, buffer: BytesMut) -> Result<Bytes, Exhausted> {
        let charge = self.charge(buffer.capacity().saturating_add(held::OVERHEAD))?;
        Ok(Self::freeze_under(charge, buffer))
    }

    /// The buffer as bytes that keep the `charge` until their last clone or slice is dropped. The charge has to cover
    /// the capacity of the buffer.
    pub fn freeze_under(charge: Charge, buffer: BytesMut) -> Bytes {
        held::holding(buffer, charge)
    }

    /// A copy of `bytes`, charged until the last clone or slice of the copy is dropped.
    ///
    /// # Errors
    /// As of [`charge`](Self::charge). Nothing has been copied.
    pub fn copy(&self, bytes: &[u8]) -> Result<Bytes, Exhausted> {
        let charge = self.charge(bytes.len().saturating_add(held::OVERHEAD))?;
        Ok(held::holding(Box::<[u8]>::from(bytes), charge))
    }
}
