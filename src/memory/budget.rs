//! The budget of a gateway, and its accounts by holder.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::account::Account;
use super::share::Share;
use super::total::Total;

/// The bytes that a gateway may hold, `limits.memory_budget`; cheap to clone.
#[derive(Debug, Clone)]
pub struct Memory {
    total: Arc<Total>,
    /// The accounts that somebody has a handle of, or that hold bytes.
    accounts: Arc<Mutex<BTreeMap<Arc<str>, Weak<Share>>>>,
}

impl Memory {
    /// A budget of `limit` bytes, of which nothing is held.
    pub fn new(limit: usize) -> Self {
        Self { total: Arc::new(Total::new(limit)), accounts: Arc::default() }
    }

    /// Changes the budget. Bytes that are held already stay, also beyond a smaller budget.
    pub fn set_limit(&self, limit: usize) {
        self.total.set_limit(limit);
    }

    /// The budget, in bytes.
    pub fn limit(&self) -> usize {
        self.total.limit()
    }

    /// The bytes that all accounts hold.
    pub fn held(&self) -> usize {
        self.total.held()
    }

    /// The account of a holder; all handles of the same holder are of one account. `limit` is the account's own limit
    /// in bytes, which replaces that of earlier handles; `None`: only what is left for the others.
    pub fn account(&self, holder: &str, limit: Option<usize>) -> Account {
        let mut accounts = self.accounts.lock();
        let known = accounts.get(holder).and_then(Weak::upgrade);
        let account = known.unwrap_or_else(|| {
            accounts.retain(|_, account| account.strong_count() > 0);
            let account = Arc::new(Share::new(Arc::clone(&self.total)));
            accounts.insert(holder.into(), Arc::downgrade(&account));
            account
        });
        account.set_limit(limit);
        Account(account)
    }
}
