//! Who is charged for what the gateway holds of one child.

use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::jsonrpc::FREE;
use crate::memory::{Account, Charge, Exhausted};

/// The bytes that each child is charged with from its start to its end: the buffers that its stdout and stderr are read
/// into, the last lines of its stderr, and its tables.
const CHILD: usize = FREE + 64 * 1024;

/// The account that a child's output and the gateway's record of the child are charged to: that of the tenant, or the
/// server's own for a child that all tenants share, and for a spare until a tenant adopts it.
#[derive(Debug)]
pub struct Payer {
    first: Account,
    /// The account of the tenant that has adopted the child, which was a spare.
    adopted: OnceLock<Account>,
    /// The charge for the record of the child.
    record: Mutex<Charge>,
}

impl Payer {
    /// Charges the record of one more child to `account`.
    ///
    /// # Errors
    /// The account has no room for it.
    pub fn new(account: &Account) -> Result<Self, Exhausted> {
        let record = Mutex::new(account.charge(CHILD)?);
        Ok(Self { first: account.clone(), adopted: OnceLock::new(), record })
    }

    /// The account that is charged now.
    pub(super) fn account(&self) -> &Account {
        self.adopted.get().unwrap_or(&self.first)
    }

    /// Charges another account from now on, which has paid for the record as `by`. What waits already stays with the
    /// earlier one. Only the first adoption counts: a child has one tenant.
    pub(super) fn adopt(&self, by: Self) {
        if self.adopted.set(by.first).is_ok() {
            *self.record.lock() = by.record.into_inner();
        }
    }
}
