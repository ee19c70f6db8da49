//! Sessions that have a lease on another child already, and keep this one for what is in flight.

use super::lease_id::LeaseId;
use super::table::Multiplexer;

impl Multiplexer {
    /// The number of calls that clients have put to the child.
    pub(in crate::worker) fn total(&self) -> u64 {
        self.total
    }

    /// Counts one more call of a client. Returns the new number of calls.
    pub(in crate::worker) fn count(&mut self) -> u64 {
        self.total += 1;
        self.total
    }

    /// Marks a session as one that has another child: announcements of this child no longer go to that session.
    pub(in crate::worker) fn leave_when_idle(&mut self, peer: LeaseId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.is_leaving = true;
        }
    }

    /// Whether a session has another child, and keeps this one for what is in flight.
    pub(super) fn is_leaving(&self, peer: LeaseId) -> bool {
        self.peers.get(&peer).is_some_and(|state| state.is_leaving)
    }

    /// The sessions that have another child and nothing in flight on this one.
    pub(in crate::worker) fn ready_to_leave(&self) -> Vec<LeaseId> {
        let leaving = self.peers.iter().filter(|(_, state)| state.is_leaving).map(|(peer, _)| *peer);
        leaving.filter(|peer| self.is_idle_for(*peer)).collect()
    }
}
