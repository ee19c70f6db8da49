//! What should be known of a child that sessions share, written down in the simplest way: the property test holds the
//! multiplexer to it. A call is known by its tag, which travels in its params and which the multiplexer does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::PeerId;
use crate::stream::Exchange;

pub(super) const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Someone who waits for an answer.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) peer: PeerId,
    pub(super) id: &'static str,
    pub(super) exchange: Arc<Exchange>,
}

/// A call that the child has heard and that is not over.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) asker: Asker,
    pub(super) token: Option<&'static str>,
    pub(super) wire: u64,
    pub(super) what: What,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Call,
    CreateTask,
    Level(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Task(u64),
    Tasks,
}

#[derive(Debug, Default)]
pub(super) struct Subscribed {
    pub(super) peers: BTreeSet<PeerId>,
    /// The tag of the first subscribe, while it is in flight, and who else waits for it.
    pub(super) asking: Option<(u64, Vec<Asker>)>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) open: BTreeMap<u64, Open>,
    pub(super) peers: BTreeMap<PeerId, Option<usize>>,
    pub(super) uris: BTreeMap<usize, Subscribed>,
    pub(super) told: Option<usize>,
    pub(super) tasks: BTreeMap<u64, PeerId>,
    pub(super) elicitations: BTreeMap<u64, PeerId>,
    /// Requests of the child: who was asked, under which number, and the child's own id.
    pub(super) asked: BTreeMap<u64, (PeerId, String)>,
}

impl Model {
    pub(super) fn loudest(&self) -> Option<usize> {
        self.peers.values().flatten().min().copied()
    }

    pub(super) fn only(&self) -> Option<PeerId> {
        self.peers.keys().next().copied().filter(|_| self.peers.len() == 1)
    }

    /// The one who can have caused something, if it is one.
    pub(super) fn causer(&self) -> Option<PeerId> {
        let callers: BTreeSet<PeerId> = self.open.values().map(|open| open.asker.peer).collect();
        self.only().or_else(|| callers.first().copied().filter(|_| callers.len() == 1))
    }

    /// The latest call of a session with this id that may be cancelled.
    pub(super) fn cancellable(&self, peer: PeerId, id: &str) -> Option<u64> {
        let fits = |open: &Open| open.asker.peer == peer && open.asker.id == id;
        let found = self.open.iter().filter(|(_, open)| fits(open)).max_by_key(|(_, open)| open.wire);
        found.filter(|(_, open)| !matches!(open.what, What::Subscribe(_))).map(|(tag, _)| *tag)
    }

    /// Takes a session off: what the child should hear of it, and who should get an error.
    pub(super) fn leave(&mut self, peer: PeerId) -> (Vec<String>, Vec<Asker>) {
        let (mut frames, mut failed) = (Vec::new(), Vec::new());
        self.peers.remove(&peer);
        for subscribed in self.uris.values_mut() {
            if let Some((_, waiting)) = &mut subscribed.asking {
                let (own, others) = std::mem::take(waiting).into_iter().partition(|asker| asker.peer == peer);
                *waiting = others;
                failed.extend::<Vec<_>>(own);
            }
        }
        let tags: Vec<u64> = self.open.iter().filter(|(_, o)| o.asker.peer == peer).map(|(tag, _)| *tag).collect();
        for tag in tags {
            let Some(open) = self.open.get_mut(&tag) else { continue };
            if let What::Subscribe(uri) = open.what
                && let Some((_, waiting)) = self.uris.get_mut(&uri).and_then(|subscribed| subscribed.asking.as_mut())
                && !waiting.is_empty()
            {
                failed.push(std::mem::replace(&mut open.asker, waiting.remove(0)));
                continue;
            }
            if let What::Subscribe(uri) = open.what {
                self.uris.remove(&uri);
            }
            frames.push(format!("cancel {}", open.wire));
            failed.extend(self.open.remove(&tag).map(|open| open.asker));
        }
        self.asked.retain(|_, (asked, id)| {
            let gone = *asked == peer;
            frames.extend(gone.then(|| format!("refuse {id}")));
            !gone
        });
        self.uris.retain(|uri, subscribed| {
            let was = subscribed.peers.remove(&peer);
            if was && subscribed.peers.is_empty() {
                frames.push(format!("unsubscribe {uri}"));
            }
            !subscribed.peers.is_empty() || subscribed.asking.is_some()
        });
        if let Some(loudest) = self.loudest().filter(|loudest| self.told != Some(*loudest)) {
            self.told = Some(loudest);
            frames.push(format!("level {}", LEVELS[loudest]));
        }
        self.tasks.retain(|_, owner| *owner != peer);
        self.elicitations.retain(|_, owner| *owner != peer);
        (frames, failed)
    }
}
