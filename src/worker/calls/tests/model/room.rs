//! How much room there is on a child, and for whom.

use super::{LeaseId, Model, Refused, Subscribed};

impl Model {
    /// Calls that are in flight or wait for others'.
    fn load(&self) -> usize {
        let waiting = |subscribed: &Subscribed| subscribed.asking.as_ref().map_or(0, |asking| asking.waiting.len());
        self.open.len() + self.uris.values().map(waiting).sum::<usize>()
    }

    /// Those of one session.
    fn load_of(&self, peer: LeaseId) -> usize {
        let waiting = self.uris.values().filter_map(|subscribed| subscribed.asking.as_ref());
        let askers = waiting.flat_map(|asking| &asking.waiting).chain(self.open.values().map(|open| &open.asker));
        askers.filter(|asker| asker.peer == peer).count()
    }

    /// Whether the child would take another call of a session if nobody waited for a subscription.
    pub(in crate::worker::calls::tests) fn is_full_of_waiting(&self, peer: LeaseId) -> bool {
        let own = self.open.values().filter(|open| open.asker.peer == peer).count();
        self.open.len() + own < self.max_in_flight
    }

    /// Why the child takes no more calls of a session, if it does not.
    pub(in crate::worker::calls::tests) fn refusal(&self, peer: LeaseId, is_own: bool) -> Option<Refused> {
        let left = self.max_in_flight.saturating_sub(self.load());
        match self.load_of(peer) {
            _ if left == 0 => Some(Refused::Busy),
            own => (!is_own && own >= left).then_some(Refused::Share),
        }
    }

    /// Whether the child may ask a session one thing more.
    pub(in crate::worker::calls::tests) fn may_be_asked(&self, peer: LeaseId) -> bool {
        let own = self.asked.values().filter(|asked| asked.peer == peer).count();
        own + self.asked.len() < self.max_in_flight
    }
}
