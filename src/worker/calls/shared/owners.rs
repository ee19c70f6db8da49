//! Which session a task or an elicitation belongs to, on a child that sessions share.

use std::collections::{HashMap, VecDeque};

use crate::mcp::LONGEST_LABEL;
use crate::worker::calls::LeaseId;

/// The most entries of one table.
const OWNERS: usize = 10_000;

/// The owner of each task or elicitation, by id. The first owner stays: naming an id again gives no access. Holds at
/// most 10,000 entries: then the oldest entry of the session with the most entries is forgotten, and belongs to no
/// session.
#[derive(Debug, Default)]
pub(in crate::worker::calls) struct Owners {
    owners: HashMap<String, LeaseId>,
    order: VecDeque<String>,
    counts: HashMap<LeaseId, usize>,
}

impl Owners {
    /// Makes `owner` the owner of an id that has none. An id over 1 KiB is left without an owner.
    pub(in crate::worker::calls) fn insert(&mut self, id: &str, owner: LeaseId) {
        if self.owners.contains_key(id) || id.len() > LONGEST_LABEL {
            return;
        }
        self.owners.insert(id.to_owned(), owner);
        self.order.push_back(id.to_owned());
        *self.counts.entry(owner).or_default() += 1;
        if self.order.len() > OWNERS {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        let most = self.counts.iter().max_by_key(|(_, count)| **count).map(|(owner, _)| *owner);
        let place = self.order.iter().position(|id| self.get(id) == most);
        if let Some(id) = place.and_then(|place| self.order.remove(place)) {
            self.owners.remove(&id);
            most.and_then(|most| self.counts.get_mut(&most)).into_iter().for_each(|count| *count -= 1);
        }
    }

    /// The owner of an id; `None` if the id is not known, or was forgotten.
    pub(in crate::worker::calls) fn get(&self, id: &str) -> Option<LeaseId> {
        self.owners.get(id).copied()
    }

    #[cfg(test)]
    pub(in crate::worker::calls) fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.order.is_empty() && self.counts.is_empty()
    }

    /// Removes a session: its tasks and elicitations belong to no session from now on.
    pub(super) fn forget(&mut self, peer: LeaseId) {
        if self.counts.remove(&peer).is_none() {
            return;
        }
        self.owners.retain(|_, owner| *owner != peer);
        self.order.retain(|id| self.owners.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_too_many_things_makes_nobody_else_forget_his() {
        let (mut owners, greedy, other) = (Owners::default(), LeaseId(1), LeaseId(2));
        owners.insert("other", other);
        (0..2 * OWNERS).for_each(|number| owners.insert(&number.to_string(), greedy));
        assert_eq!((owners.get("other"), owners.owners.len()), (Some(other), OWNERS));
        let kept = |number: usize| owners.get(&number.to_string()).is_some();
        assert!(!kept(OWNERS) && kept(OWNERS + 1) && kept(2 * OWNERS - 1), "of his own the latest are kept");
        owners.forget(greedy);
        owners.forget(other);
        assert!(owners.is_empty());
    }
}
