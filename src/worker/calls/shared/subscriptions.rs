//! Resource subscriptions of all sessions on a child, counted by URI: the child hears the first subscribe and the last
//! unsubscribe.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::uri::is_part_of;
use crate::worker::calls::{LeaseId, Waiting};

/// The most URIs that one session may be subscribed to.
const SUBSCRIPTIONS: usize = 1024;
/// The longest URI that a session may subscribe to, in bytes.
pub(super) const LONGEST_URI: usize = 8 * 1024;

/// The first `resources/subscribe` for a URI, in flight.
#[derive(Debug, Default)]
struct Asking {
    /// The sessions to subscribe if the child agrees.
    wanted: BTreeSet<LeaseId>,
    /// Further requests that wait for the answer, in their order.
    waiting: Vec<Waiting>,
}

/// The subscriptions of all sessions, counted by URI.
#[derive(Debug, Default)]
pub(in crate::worker::calls) struct Subscriptions {
    /// The subscribed sessions of each URI.
    held: BTreeMap<String, BTreeSet<LeaseId>>,
    asking: BTreeMap<String, Asking>,
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
        if self.held.get(uri).is_some_and(|peers| peers.contains(&peer)) {
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
    pub(super) fn ask(&mut self, uri: &str, peer: LeaseId) {
        self.asking.insert(uri.to_owned(), Asking { wanted: BTreeSet::from([peer]), waiting: Vec::new() });
    }

    /// Lets a request wait for the answer to the first subscribe.
    pub(super) fn wait(&mut self, uri: &str, waiting: Waiting) {
        let asking = self.asking.entry(uri.to_owned()).or_default();
        asking.wanted.insert(waiting.peer);
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
            wanted.into_iter().for_each(|peer| self.hold(uri, peer));
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
    pub(super) fn of(&self, peer: LeaseId) -> impl Iterator<Item = &String> {
        self.held.iter().filter(move |(_, peers)| peers.contains(&peer)).map(|(uri, _)| uri)
    }

    /// The number of URIs that a session is subscribed to.
    pub(super) fn count(&self, peer: LeaseId) -> usize {
        self.counts.get(&peer).copied().unwrap_or_default()
    }

    /// Subscribes the one session of a child, as the child has agreed. Beyond the bounds the subscription is not
    /// remembered.
    pub(super) fn remember(&mut self, uri: &str, peer: LeaseId) {
        if uri.len() <= LONGEST_URI && self.count(peer) < SUBSCRIPTIONS {
            self.hold(uri, peer);
        }
    }

    /// Whether the child has to hear an unsubscribe: it would unsubscribe all sessions. Also that of a session that
    /// never subscribed is sent, if nobody else has.
    pub(super) fn is_last(&self, uri: &str, peer: LeaseId) -> bool {
        let others = |peers: &BTreeSet<LeaseId>| peers.iter().any(|other| *other != peer);
        !self.asking.contains_key(uri) && !self.held.get(uri).is_some_and(others)
    }

    /// Unsubscribes a session from a URI, also from a subscribe in flight. Returns whether the session was subscribed.
    pub(super) fn unsubscribe(&mut self, uri: &str, peer: LeaseId) -> bool {
        if let Some(asking) = self.asking.get_mut(uri) {
            asking.wanted.remove(&peer);
        }
        let Some(peers) = self.held.get_mut(uri) else { return false };
        let was = peers.remove(&peer);
        if peers.is_empty() {
            self.held.remove(uri);
        }
        if was && let Some(count) = self.counts.get_mut(&peer) {
            *count -= 1;
        }
        was
    }

    /// Subscribes a session to a URI.
    pub(super) fn hold(&mut self, uri: &str, peer: LeaseId) {
        if self.held.entry(uri.to_owned()).or_default().insert(peer) {
            *self.counts.entry(peer).or_default() += 1;
        }
    }

    /// The sessions that are subscribed to a URI, or to a URI that this one is a sub-resource of; each once.
    pub(super) fn subscribers(&self, uri: &str) -> Vec<LeaseId> {
        let covering = self.held.iter().filter(|(subscribed, _)| is_part_of(uri, subscribed));
        covering.flat_map(|(_, peers)| peers).copied().collect::<BTreeSet<_>>().into_iter().collect()
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
    pub(super) fn forget(&mut self, peer: LeaseId) -> (Vec<String>, Vec<Waiting>) {
        let (mut unused, gone) = (Vec::new(), self.withdraw(peer));
        self.held.retain(|uri, peers| {
            if peers.remove(&peer) && peers.is_empty() && !self.asking.contains_key(uri) {
                unused.push(uri.clone());
            }
            !peers.is_empty()
        });
        self.counts.remove(&peer);
        (unused, gone)
    }
}
