//! What sessions that share a child hold of it: subscriptions, log levels, tasks, elicitations. Nothing of one session's
//! is ever told to another.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::PeerId;
use crate::jsonrpc::RawId;
use crate::stream::Exchange;

/// Owners that are remembered for each kind of thing; the oldest is forgotten, and then belongs to nobody.
const OWNERS: usize = 10_000;

/// The log levels, quietest last (RFC 5424).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// A log level: the smaller, the louder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(usize);

impl Level {
    pub(super) fn parse(text: &str) -> Option<Self> {
        LEVELS.iter().position(|level| *level == text).map(Self)
    }

    pub(super) fn as_str(self) -> &'static str {
        LEVELS.get(self.0).copied().unwrap_or("info")
    }
}

/// Someone who waits for the answer to a request that another has sent already.
#[derive(Debug)]
pub(in crate::worker) struct Waiting {
    pub(in crate::worker) peer: PeerId,
    pub(in crate::worker) id: RawId,
    pub(in crate::worker) exchange: Arc<Exchange>,
}

/// One URI that sessions subscribe to.
#[derive(Debug, Default)]
struct Subscription {
    peers: BTreeSet<PeerId>,
    /// While the first `resources/subscribe` is in flight.
    asking: Option<Vec<Waiting>>,
}

/// The subscriptions of all sessions, counted by URI.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(BTreeMap<String, Subscription>);

/// What to do with a subscribe or unsubscribe.
#[derive(Debug)]
pub(super) enum Counted {
    /// The child has to hear it.
    Forward,
    /// It changes nothing for the child.
    Local,
    /// The answer to the one that is in flight is its answer too.
    Wait,
}

impl Subscriptions {
    pub(super) fn subscribe(&mut self, uri: &str, waiting: impl FnOnce() -> Waiting, peer: PeerId) -> Counted {
        let subscription = self.0.entry(uri.to_owned()).or_default();
        if let Some(others) = &mut subscription.asking {
            others.push(waiting());
            return Counted::Wait;
        }
        if subscription.peers.is_empty() {
            subscription.asking = Some(Vec::new());
            return Counted::Forward;
        }
        subscription.peers.insert(peer);
        Counted::Local
    }

    /// The child has answered the first subscribe: who else waited for it.
    pub(super) fn subscribed(&mut self, uri: &str, peer: Option<PeerId>, accepted: bool) -> Vec<Waiting> {
        let Some(subscription) = self.0.get_mut(uri) else { return Vec::new() };
        let waiting = subscription.asking.take().unwrap_or_default();
        if accepted {
            subscription.peers.extend(peer.into_iter().chain(waiting.iter().map(|w| w.peer)));
        }
        if subscription.peers.is_empty() {
            self.0.remove(uri);
        }
        waiting
    }

    pub(super) fn unsubscribe(&mut self, uri: &str, peer: PeerId) -> Counted {
        let Some(subscription) = self.0.get_mut(uri) else { return Counted::Forward };
        let was = subscription.peers.remove(&peer);
        if subscription.peers.is_empty() && subscription.asking.is_none() {
            self.0.remove(uri);
            return Counted::Forward;
        }
        // The child would unsubscribe the others: that somebody never subscribed is not its business.
        let _ = was;
        Counted::Local
    }

    /// Who has subscribed to a URI, or to one that it is a part of.
    pub(super) fn subscribers(&self, uri: &str) -> BTreeSet<PeerId> {
        let covers = |subscribed: &str| {
            uri.strip_prefix(subscribed)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || subscribed.ends_with('/'))
        };
        self.0.iter().filter(|(subscribed, _)| covers(subscribed)).flat_map(|(_, s)| s.peers.iter().copied()).collect()
    }

    /// Takes the first out of those who wait for the answer to a subscribe that is in flight.
    pub(super) fn next_waiting(&mut self, uri: &str) -> Option<Waiting> {
        let waiting = self.0.get_mut(uri)?.asking.as_mut()?;
        (!waiting.is_empty()).then(|| waiting.remove(0))
    }

    /// Drops everything of a peer: the URIs that nobody is left for, and what the peer waited for itself.
    pub(super) fn forget(&mut self, peer: PeerId) -> (Vec<String>, Vec<Waiting>) {
        let (mut unused, mut gone) = (Vec::new(), Vec::new());
        self.0.retain(|uri, subscription| {
            let was = subscription.peers.remove(&peer);
            if let Some(waiting) = &mut subscription.asking {
                gone.extend(waiting.extract_if(.., |w| w.peer == peer));
            }
            if was && subscription.peers.is_empty() {
                unused.push(uri.clone());
            }
            !subscription.peers.is_empty() || subscription.asking.is_some()
        });
        (unused, gone)
    }
}

/// Whose something is, by its id. Bounded: the oldest entry goes first.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owners: HashMap<String, PeerId>,
    order: VecDeque<String>,
}

impl Owners {
    pub(super) fn insert(&mut self, id: String, owner: PeerId) {
        if self.owners.insert(id.clone(), owner).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > OWNERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<PeerId> {
        self.owners.get(id).copied()
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.owners.retain(|_, owner| *owner != peer);
        self.order.retain(|id| self.owners.contains_key(id));
    }
}
