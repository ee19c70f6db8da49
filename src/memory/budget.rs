//! The budget of a gateway, and its accounts by holder.

use std::sync::Arc;

use parking_lot::Mutex;

use super::account::Account;
use super::accounts::Accounts;
use super::share::Share;
use super::total::{Total, reserve, whole};

/// The bytes that a gateway may hold, `limits.memory_budget`; cheap to clone.
#[derive(Debug, Clone)]
pub struct Memory {
    total: Arc<Total>,
    /// The account of connections.
    connections: Account,
    /// The sum over requests that have not been authenticated.
    unauthenticated: Arc<Total>,
    /// The accounts that share.
    accounts: Arc<Mutex<Accounts>>,
}

impl Memory {
    /// A budget of `limit` bytes, of which nothing is held.
    pub fn new(limit: usize) -> Self {
        let total = Arc::new(Total::new(limit));
        let connections = Account(Arc::new(Share::reserve(Arc::clone(&total))));
        let unauthenticated = Arc::new(Total::new(0));
        let memory = Self { total, connections, unauthenticated, accounts: Arc::default() };
        memory.set_limit(limit);
        memory
    }

    /// The bytes that one account can hold of a budget if no other holds any.
    pub const fn most_of_one(budget: usize) -> usize {
        (budget - reserve(budget)) / 2
    }

    /// Changes the budget. Bytes that are held already stay, also beyond a smaller budget.
    pub fn set_limit(&self, limit: usize) {
        self.total.set_limit(limit);
        self.connections.set_limit(Some(reserve(limit) / 4 * 3));
        self.unauthenticated.set_limit(whole(reserve(limit) / 4));
    }

    /// The budget, in bytes.
    pub fn limit(&self) -> usize {
        self.total.limit()
    }

    /// The bytes that all accounts hold.
    pub fn held(&self) -> usize {
        let unauthenticated = self.unauthenticated.held();
        self.total.held().saturating_add(self.connections.held()).saturating_add(unauthenticated)
    }

    /// The account of connections. It has three sixteenths of the budget, which nobody else has.
    pub const fn connections(&self) -> &Account {
        &self.connections
    }

    /// The account of a network for requests that have not been authenticated. All these accounts have a sixteenth of
    /// the budget, which nobody else has.
    pub fn unauthenticated(&self, network: &str) -> Account {
        self.find(&format!("network {network}"), &self.unauthenticated)
    }

    /// The account of a tenant.
    pub fn tenant(&self, name: &str) -> Account {
        self.account(&format!("tenant {name}"))
    }

    /// The account of the children of a server that belong to no tenant.
    pub fn server(&self, name: &str) -> Account {
        self.account(&format!("server {name}"))
    }

    /// The account of a holder; all handles of the same holder are of one account. Its limit is forgotten with the last
    /// handle.
    pub fn account(&self, holder: &str) -> Account {
        self.find(holder, &self.total)
    }

    fn find(&self, holder: &str, total: &Arc<Total>) -> Account {
        Account(self.accounts.lock().find(holder, total))
    }
}
