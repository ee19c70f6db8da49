//! What a child that is to be replaced still is to its sessions: they stay for what is in flight, and for nothing else.

use super::lease_id::LeaseId;
use super::table::Multiplexer;

impl Multiplexer {
    /// Calls that clients have put to the child.
    pub(in crate::worker) fn total(&self) -> u64 {
        self.total
    }

    /// A client has put one more to it: how many that makes.
    pub(in crate::worker) fn count(&mut self) -> u64 {
        self.total += 1;
        self.total
    }

    /// A session has another child: what is new it hears from that one.
    pub(in crate::worker) fn leave_when_idle(&mut self, peer: LeaseId) {
        if let Some(peering) = self.peers.get_mut(&peer) {
            peering.is_leaving = true;
        }
    }

    /// Whether a session is there for what is in flight only.
    pub(super) fn is_leaving(&self, peer: LeaseId) -> bool {
        self.peers.get(&peer).is_some_and(|peering| peering.is_leaving)
    }

    /// Who was leaving, and has nothing in flight any more.
    pub(in crate::worker) fn ready_to_leave(&self) -> Vec<LeaseId> {
        let leaving = self.peers.iter().filter(|(_, peering)| peering.is_leaving).map(|(peer, _)| *peer);
        leaving.filter(|peer| self.is_idle_for(*peer)).collect()
    }
}
