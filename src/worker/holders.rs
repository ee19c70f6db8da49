//! The holders of the leases on one child.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::LeaseHolder;
use super::calls::LeaseId;

/// The holders of the leases on one child.
pub(super) struct Holders(Mutex<State>);

struct State {
    holders: HashMap<LeaseId, Weak<dyn LeaseHolder>>,
    /// The number of leases so far.
    given: u64,
    /// Since when no lease exists; `None` while one does.
    unused_since: Option<Instant>,
}

impl Holders {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { holders: HashMap::new(), given: 0, unused_since: Some(Instant::now()) }))
    }

    /// Adds a lease.
    pub(super) fn insert(&self, holder: Weak<dyn LeaseHolder>) -> LeaseId {
        let mut state = self.0.lock();
        let id = LeaseId(state.given);
        (state.given, state.unused_since) = (state.given + 1, None);
        state.holders.insert(id, holder);
        id
    }

    /// Removes a lease. Returns whether the lease existed.
    pub(super) fn remove(&self, lease: LeaseId) -> bool {
        let mut state = self.0.lock();
        let existed = state.holders.remove(&lease).is_some();
        if existed && state.holders.is_empty() {
            state.unused_since = Some(Instant::now());
        }
        existed
    }

    /// Gives a lease another holder.
    pub(super) fn replace(&self, lease: LeaseId, by: Weak<dyn LeaseHolder>) {
        self.0.lock().holders.entry(lease).and_modify(|holder| *holder = by);
    }

    /// The holder of a lease; `None` if the lease or its holder is gone.
    pub(super) fn get(&self, lease: LeaseId) -> Option<Arc<dyn LeaseHolder>> {
        self.0.lock().holders.get(&lease)?.upgrade()
    }

    /// The holders that still exist.
    pub(super) fn all(&self) -> Vec<Arc<dyn LeaseHolder>> {
        self.0.lock().holders.values().filter_map(Weak::upgrade).collect()
    }

    /// The number of leases, also of those whose holder is gone.
    pub(super) fn len(&self) -> usize {
        self.0.lock().holders.len()
    }

    /// Since when no lease exists; `None` while one does.
    pub(super) fn unused_since(&self) -> Option<Instant> {
        self.0.lock().unused_since
    }
}
