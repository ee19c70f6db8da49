//! Resource subscriptions of all sessions on a child, counted by URI: the child hears the first subscribe and the last
//! unsubscribe.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::uri::is_part_of;
use crate::memory::Text;
use crate::worker::calls::{LeaseId, Waiting};

/// The most URIs that one session may be subscribed to.
const SUBSCRIPTIONS: usize = 1024;
/// The longest URI that a session may subscribe to, in bytes.
pub(super) const LONGEST_URI: usize = 8 * 1024;

/// The first `resources/subscribe` for a URI, in flight.
#[derive(Debug, Default)]
struct Asking {
    /// The sessions to subscribe if the child agrees, each with its own copy of the URI.
    wanted: BTreeMap<LeaseId, Text>,
    /// Further requests that wait for the answer, in their order.
    waiting: Vec<Waiting>,
}

/// The subscriptions of all sessions, counted by URI.
#[derive(Debug, Default)]
pub(in crate::worker::calls) struct Subscriptions {
    /// The subscribed sessions of each URI, each with its own copy, which is charged to its client. The key is a clone
    /// of one of the copies.
    held: BTreeMap<Text, BTreeMap<LeaseId, Text>>,
    asking: BTreeMap<Text, Asking>,
    /// The number of URIs that each session is subscribed to.
    counts: HashMap<LeaseId, usize>,
    /// The length of all `waiting` together.
    waits: usize,
}

/// What becomes of a subscribe or unsubscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// The child has to hear the request.
    Forward,
    /// The request changes nothing for the child.
    Local,
    /// The subscribe of another session is in flight. Its answer is the answer to this one too.
    Wait,
    /// The session has too many subscriptions.
    TooMany,
}

impl Subscriptions {
    /// What would become of a subscribe.
    pub(super) fn would_subscribe(&self, uri: &str, peer: LeaseId) -> Counted {
        if self.held.get(uri).is_some_and(|peers| peers.contains_key(&peer)) {
            return Counted::Local;
        }
        if self.count(peer) >= SUBSCRIPTIONS {
            return Counted::TooMany;
        }
        match (self.asking.contains_key(uri), self.is_held(uri)) {
            (true, _) => Counted::Wait,
            (false, true) => Counted::Local,
            (false, false) => Counted::Forward,
        }
    }

    /// Notes that the first subscribe for a URI is sent to the child.
    pub(super) fn ask(&mut self, uri: &Text, peer: LeaseId) {
        let wanted = BTreeMap::from([(peer, uri.clone())]);
        self.asking.insert(uri.clone(), Asking { wanted, waiting: Vec::new() });
    }

    /// Lets a request wait for the answer to the first subscribe.
    pub(super) fn wait(&mut self, uri: &Text, waiting: Waiting) {
        let asking = self.asking.entry(uri.clone()).or_default();
        asking.wanted.insert(waiting.peer, uri.clone());
        asking.waiting.push(waiting);
        self.waits += 1;
    }

    /// The number of requests that wait for the answer to the subscribe of another session.
    pub(in crate::worker::calls) fn waits(&self) -> usize {
        self.waits
    }

    /// The requests that wait for the answer to the subscribe of another session.
    pub(in crate::worker::calls) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.asking.values().flat_map(|asking| &asking.waiting)
    }

    /// The first subscribe for a URI is over; `accepted` if the child has answered with a result. Returns the requests
    /// that waited for the answer, and whether the child is subscribed though no session wants the URI any more.
    pub(super) fn subscribed(&mut self, uri: &str, accepted: bool) -> (Vec<Waiting>, bool) {
        let Some(Asking { wanted, waiting }) = self.asking.remove(uri) else { return (Vec::new(), false) };
        self.waits -= waiting.len();
        let is_unwanted = accepted && wanted.is_empty() && !self.is_held(uri);
        if accepted {
            wanted.into_iter().for_each(|(peer, uri)| self.hold(&uri, peer));
        }
        (waiting, is_unwanted)
    }

    /// Whether any session is subscribed to anything.
    pub(in crate::worker::calls) fn has_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether any session is subscribed to a URI.
    pub(super) fn is_held(&self, uri: &str) -> bool {
        self.held.contains_key(uri)
    }

    /// The URIs that a session is subscribed to.
    pub(super) fn of(&self, peer: LeaseId) -> impl Iterator<Item = &Text> {
        self.held.values().filter_map(move |peers| peers.get(&peer))
    }

    /// The number of URIs that a session is subscribed to.
    pub(super) fn count(&self, peer: LeaseId) -> usize {
        self.counts.get(&peer).copied().unwrap_or_default()
    }

    /// Subscribes the one session of a child, as the child has agreed. Beyond the bounds the subscription is not
    /// remembered.
    pub(super) fn remember(&mut self, uri: &Text, peer: LeaseId) {
        if uri.len() <= LONGEST_URI && self.count(peer) < SUBSCRIPTIONS {
            self.hold(uri, peer);
        }
    }

    /// Whether the child has to hear an unsubscribe: it would unsubscribe all sessions. Also that of a session that
    /// never subscribed is sent, if nobody else has.
    pub(super) fn is_last(&self, uri: &str, peer: LeaseId) -> bool {
        let others = |peers: &BTreeMap<LeaseId, Text>| peers.keys().any(|other| *other != peer);
        !self.asking.contains_key(uri) && !self.held.get(uri).is_some_and(others)
    }

    /// Unsubscribes a session from a URI, also from a subscribe in flight. Returns whether the session was subscribed.
    pub(super) fn unsubscribe(&mut self, uri: &str, peer: LeaseId) -> bool {
        if let Some(asking) = self.asking.get_mut(uri) {
            asking.wanted.remove(&peer);
        }
        let was = self.release(uri, peer);
        if was && let Some(count) = self.counts.get_mut(&peer) {
            *count -= 1;
        }
        was
    }

    /// Removes a session from those subscribed to a URI. Returns whether it was. The key is replaced where it was a
    /// clone of this session's copy: a client is charged for what it is subscribed to only.
    fn release(&mut self, uri: &str, peer: LeaseId) -> bool {
        let Some((key, mut peers)) = self.held.remove_entry(uri) else { return false };
        let own = peers.remove(&peer);
        if let Some(next) = peers.values().next().cloned() {
            let is_own_key = own.as_ref().is_some_and(|own| own.is(&key));
            self.held.insert(if is_own_key { next } else { key }, peers);
        }
        own.is_some()
    }

    /// Subscribes a session to a URI.
    pub(super) fn hold(&mut self, uri: &Text, peer: LeaseId) {
        if self.held.entry(uri.clone()).or_default().insert(peer, uri.clone()).is_none() {
            *self.counts.entry(peer).or_default() += 1;
        }
    }

    /// The sessions that are subscribed to a URI, or to a URI that this one is a sub-resource of; each once.
    pub(super) fn subscribers(&self, uri: &str) -> Vec<LeaseId> {
        let covering = self.held.iter().filter(|(subscribed, _)| is_part_of(uri, subscribed));
        covering.flat_map(|(_, peers)| peers.keys()).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.asking.is_empty() && self.counts.is_empty() && self.waits == 0
    }

    /// Removes and returns the oldest request that waits for the answer to the subscribe in flight for `uri`. `None` if
    /// there is none.
    pub(super) fn next_waiting(&mut self, uri: &str) -> Option<Waiting> {
        let waiting = &mut self.asking.get_mut(uri)?.waiting;
        let next = (!waiting.is_empty()).then(|| waiting.remove(0))?;
        self.waits -= 1;
        Some(next)
    }

    /// Gives up the subscribes in flight for a session. Returns the requests of the session that waited.
    pub(super) fn withdraw(&mut self, peer: LeaseId) -> Vec<Waiting> {
        let mut gone = Vec::new();
        for asking in self.asking.values_mut() {
            asking.wanted.remove(&peer);
            gone.extend(asking.waiting.extract_if(.., |waiting| waiting.peer == peer));
        }
        self.waits -= gone.len();
        gone
    }

    /// Removes a session. Returns the URIs that no session wants any more, and the requests of the session that waited.
    pub(super) fn forget(&mut self, peer: LeaseId) -> (Vec<Text>, Vec<Waiting>) {
        let (mut unused, gone) = (Vec::new(), self.withdraw(peer));
        for uri in self.of(peer).cloned().collect::<Vec<_>>() {
            self.release(&uri, peer);
            if !self.is_held(&uri) && !self.asking.contains_key(&uri) {
                unused.push(uri);
            }
        }
        self.counts.remove(&peer);
        (unused, gone)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn who_is_subscribed_no_more_is_charged_for_nothing_though_others_are() {
        let memory = Memory::new(1 << 20);
        let (a, b) = (memory.tenant("a"), memory.tenant("b"));
        let mut subscriptions = Subscriptions::default();
        for (account, peer) in [(&a, LeaseId(1)), (&b, LeaseId(2))] {
            let uri = account.text("x://a").unwrap();
            subscriptions.ask(&uri, peer);
            subscriptions.subscribed(&uri, true);
        }
        assert!(a.held() > 0 && b.held() > 0);
        assert!(subscriptions.unsubscribe("x://a", LeaseId(1)));
        assert!(a.held() == 0 && b.held() > 0);
        assert_eq!(subscriptions.subscribers("x://a"), [LeaseId(2)]);
        assert_eq!(subscriptions.forget(LeaseId(2)).0.len(), 1);
        assert_eq!(memory.held(), 0);
        subscriptions.forget(LeaseId(1));
        assert!(subscriptions.is_empty());
    }
}
