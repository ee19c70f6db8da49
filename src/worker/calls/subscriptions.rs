//! Resource subscriptions of all sessions on a child, counted by URI: the child hears the first subscribe and the last
//! unsubscribe.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::lease_id::LeaseId;
use super::uri::is_part_of;
use crate::jsonrpc::RawId;
use crate::stream::Exchange;

/// URIs that one session may subscribe to.
const SUBSCRIPTIONS: usize = 1024;
/// The longest of them, in bytes.
pub(super) const URI: usize = 8 * 1024;

/// Someone who waits for the answer to a request that another has sent already.
#[derive(Debug)]
pub(in crate::worker) struct Waiting {
    pub(in crate::worker) peer: LeaseId,
    pub(in crate::worker) id: RawId,
    pub(in crate::worker) exchange: Arc<Exchange>,
    /// The time until the answer.
    pub(in crate::worker) timeout: Duration,
    /// Whether it is the gateway that waits, and no client.
    pub(super) is_own: bool,
}

/// A URI while the first `resources/subscribe` for it is in flight.
#[derive(Debug, Default)]
struct Asking {
    /// Who will be subscribed if the child agrees.
    wanted: BTreeSet<LeaseId>,
    /// Who waits for the answer, besides the one who asked.
    waiting: Vec<Waiting>,
}

/// The subscriptions of all sessions, counted by URI.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    held: BTreeMap<String, BTreeSet<LeaseId>>,
    asking: BTreeMap<String, Asking>,
    /// URIs that each session holds.
    counts: HashMap<LeaseId, usize>,
    /// How many wait for an answer, besides those who asked.
    waits: usize,
}

/// What to do with a subscribe or unsubscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// The child has to hear it.
    Forward,
    /// It changes nothing for the child.
    Local,
    /// The answer to the one that is in flight is its answer too.
    Wait,
    /// The session has too many.
    TooMany,
}

impl Subscriptions {
    /// What a subscribe would come to.
    pub(super) fn would_subscribe(&self, uri: &str, peer: LeaseId) -> Counted {
        if self.held.get(uri).is_some_and(|peers| peers.contains(&peer)) {
            return Counted::Local;
        }
        if self.counts.get(&peer).is_some_and(|count| *count >= SUBSCRIPTIONS) {
            return Counted::TooMany;
        }
        match (self.asking.contains_key(uri), self.held.contains_key(uri)) {
            (true, _) => Counted::Wait,
            (false, true) => Counted::Local,
            (false, false) => Counted::Forward,
        }
    }

    /// The child is asked for the first time.
    pub(super) fn ask(&mut self, uri: &str, peer: LeaseId) {
        self.asking.insert(uri.to_owned(), Asking { wanted: BTreeSet::from([peer]), waiting: Vec::new() });
    }

    /// Another waits for the answer to the first.
    pub(super) fn wait(&mut self, uri: &str, waiting: Waiting) {
        let asking = self.asking.entry(uri.to_owned()).or_default();
        asking.wanted.insert(waiting.peer);
        asking.waiting.push(waiting);
        self.waits += 1;
    }

    /// How many wait for an answer to what another has asked.
    pub(super) fn waits(&self) -> usize {
        self.waits
    }

    /// Who waits for an answer to what another has asked.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.asking.values().flat_map(|asking| &asking.waiting)
    }

    /// The child has answered the first subscribe, or will not: who else waited for it, and whether the child is
    /// subscribed now though nobody wants it any more.
    pub(super) fn subscribed(&mut self, uri: &str, accepted: bool) -> (Vec<Waiting>, bool) {
        let Some(Asking { wanted, waiting }) = self.asking.remove(uri) else { return (Vec::new(), false) };
        self.waits -= waiting.len();
        let is_unwanted = accepted && wanted.is_empty() && !self.is_held(uri);
        if accepted {
            wanted.into_iter().for_each(|peer| self.hold(uri, peer));
        }
        (waiting, is_unwanted)
    }

    /// Whether anybody is subscribed to a URI.
    pub(super) fn is_held(&self, uri: &str) -> bool {
        self.held.contains_key(uri)
    }

    /// What a session is subscribed to.
    pub(super) fn of(&self, peer: LeaseId) -> BTreeSet<String> {
        self.held.iter().filter(|(_, peers)| peers.contains(&peer)).map(|(uri, _)| uri.clone()).collect()
    }

    /// Whether a session is subscribed to anything.
    pub(super) fn has_any(&self, peer: LeaseId) -> bool {
        self.counts.get(&peer).is_some_and(|count| *count > 0)
    }

    /// A child that is the session's own has subscribed it. Beyond the bounds that is not remembered.
    pub(super) fn remember(&mut self, uri: &str, peer: LeaseId) {
        if uri.len() <= URI && self.counts.get(&peer).is_none_or(|count| *count < SUBSCRIPTIONS) {
            self.hold(uri, peer);
        }
    }

    /// What an unsubscribe would come to.
    pub(super) fn would_unsubscribe(&self, uri: &str, peer: LeaseId) -> Counted {
        let others = |peers: &BTreeSet<LeaseId>| peers.iter().any(|other| *other != peer);
        // The child would unsubscribe the others: that somebody never subscribed is not its business.
        match self.asking.contains_key(uri) || self.held.get(uri).is_some_and(others) {
            true => Counted::Local,
            false => Counted::Forward,
        }
    }

    /// A session wants a URI no more, and not when the answer to its subscribe comes either. Whether it held it.
    pub(super) fn unsubscribe(&mut self, uri: &str, peer: LeaseId) -> bool {
        if let Some(asking) = self.asking.get_mut(uri) {
            asking.wanted.remove(&peer);
        }
        self.release(uri, peer)
    }

    pub(super) fn hold(&mut self, uri: &str, peer: LeaseId) {
        if self.held.entry(uri.to_owned()).or_default().insert(peer) {
            *self.counts.entry(peer).or_default() += 1;
        }
    }

    fn release(&mut self, uri: &str, peer: LeaseId) -> bool {
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

    /// Who has subscribed to a URI, or to one that it is a part of.
    pub(super) fn subscribers(&self, uri: &str) -> BTreeSet<LeaseId> {
        let covering = self.held.iter().filter(|(subscribed, _)| is_part_of(uri, subscribed));
        covering.flat_map(|(_, peers)| peers).copied().collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.asking.is_empty() && self.counts.is_empty() && self.waits == 0
    }

    /// Takes the first out of those who wait for the answer to a subscribe that is in flight.
    pub(super) fn next_waiting(&mut self, uri: &str) -> Option<Waiting> {
        let waiting = &mut self.asking.get_mut(uri)?.waiting;
        let next = (!waiting.is_empty()).then(|| waiting.remove(0))?;
        self.waits -= 1;
        Some(next)
    }

    /// A peer wants no answer any more to what is being asked for: what it waited for itself.
    pub(super) fn withdraw(&mut self, peer: LeaseId) -> Vec<Waiting> {
        let mut gone = Vec::new();
        for asking in self.asking.values_mut() {
            asking.wanted.remove(&peer);
            gone.extend(asking.waiting.extract_if(.., |waiting| waiting.peer == peer));
        }
        self.waits -= gone.len();
        gone
    }

    /// Drops everything of a peer: the URIs that nobody is left for, and what the peer waited for itself.
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
