//! Fair share: a session on a shared child may add a call while its own count is below the remaining capacity. A session alone
//! gets half of the capacity, two get a third each, and one more always fits.

use super::call::Call;
use super::lease_id::LeaseId;
use super::refused::Refused;
use super::subscriptions::Waiting;
use super::table::Multiplexer;

impl Multiplexer {
    /// The reason why a session may not add a call; `None` if it may. Calls of the gateway's own are bounded by the capacity of
    /// the child alone.
    pub(super) fn refusal(&self, peer: LeaseId, is_own: bool) -> Option<Refused> {
        let total = self.calls.len() + self.subscriptions.waits();
        if total >= self.max_in_flight {
            return Some(Refused::Busy);
        }
        let own = self.waits(peer);
        (self.is_shared && !is_own && own >= self.max_in_flight - total).then_some(Refused::Share)
    }

    /// Whether the child may put one more request to a session: fewer are open with its client than there is capacity left.
    pub(super) fn may_be_asked(&self, peer: LeaseId) -> bool {
        let left = self.max_in_flight.saturating_sub(self.asked.len());
        // One cannot have more than there are: mostly there is nothing to count.
        let has_room = |own: usize| !self.is_shared || own < left;
        left > 0 && (has_room(self.asked.len()) || has_room(self.asked.values().filter(|a| a.peer == peer).count()))
    }

    /// Counts one more answer that a session waits for.
    pub(super) fn begin(&mut self, peer: LeaseId) {
        self.peers.entry(peer).and_modify(|state| state.in_flight += 1);
    }

    /// Counts one answer less that a session waits for, if the session is still on the child.
    pub(super) fn end(&mut self, peer: LeaseId) {
        self.peers.entry(peer).and_modify(|state| state.in_flight = state.in_flight.saturating_sub(1));
    }

    /// Removes a call from the calls in flight.
    pub(super) fn take_call(&mut self, number: u64) -> Option<Box<Call>> {
        let call = self.calls.remove(&number)?;
        self.end(call.peer);
        Some(call)
    }

    /// The first subscribe for a URI is answered, or will not be: what [`Subscriptions::subscribed`] says of it.
    ///
    /// [`Subscriptions::subscribed`]: super::subscriptions::Subscriptions::subscribed
    pub(super) fn subscribed(&mut self, uri: &str, accepted: bool) -> (Vec<Waiting>, bool) {
        let (waiting, is_unwanted) = self.subscriptions.subscribed(uri, accepted);
        waiting.iter().for_each(|waiting| self.end(waiting.peer));
        (waiting, is_unwanted)
    }

    /// Whether what is counted for each session is what it has in flight.
    pub(super) fn is_counted(&self) -> bool {
        let in_flight = |peer: LeaseId| {
            let calls = self.calls.values().filter(|call| call.peer == peer).count();
            calls + self.subscriptions.waiting().filter(|waiting| waiting.peer == peer).count()
        };
        self.peers.iter().all(|(peer, state)| state.in_flight == in_flight(*peer))
            && self.subscriptions.waits() == self.subscriptions.waiting().count()
    }
}
