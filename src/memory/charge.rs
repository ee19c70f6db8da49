//! A number of bytes that is charged to an account.

use std::sync::Arc;

use super::exhausted::Exhausted;
use super::share::Share;

/// Bytes of an account that something holds; given back when the charge is dropped.
#[derive(Debug)]
pub struct Charge {
    share: Arc<Share>,
    bytes: usize,
}

impl Charge {
    /// A charge of no bytes.
    pub(super) const fn none(share: Arc<Share>) -> Self {
        Self { share, bytes: 0 }
    }

    /// The number of charged bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges `bytes` more.
    ///
    /// # Errors
    /// The account has no room for them. The charge stays as it was.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.share.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Adds the bytes of another charge of the same account.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.share, &other.share), "charges of two accounts cannot be one");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives bytes back, all if there are fewer.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.share.give_back(bytes);
    }

    /// Charges `bytes` bytes in all.
    ///
    /// # Errors
    /// That is more than before, and the account has no room for it. The charge stays as it was.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Exhausted> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.shrink(self.bytes - bytes);
                Ok(())
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}
