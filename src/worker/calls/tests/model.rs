//! What should be known of a child that sessions share, written down in the simplest way: the property test holds the
//! multiplexer to it. A call is known by its tag, which travels in its params and which the multiplexer does not know.

mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::LeaseId;
use crate::stream::Exchange;
use crate::worker::Refused;

pub(super) const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Someone who waits for an answer.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) peer: LeaseId,
    pub(super) id: &'static str,
    pub(super) exchange: Arc<Exchange>,
    /// Whether it is the gateway, for a session that another child was asked the same for.
    pub(super) is_own: bool,
}

/// A call that the child has heard and that is not over.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) asker: Asker,
    pub(super) token: Option<&'static str>,
    pub(super) wire: u64,
    pub(super) what: What,
    /// Whether it has taken a subscription from its session, which is back if the child does not agree.
    pub(super) has_taken: bool,
    pub(super) deadline: Instant,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Call,
    CreateTask,
    Level(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    /// A task, and what is asked about it: `get`, `result` or `cancel`.
    Task(u64, usize),
    Tasks,
}

impl What {
    /// Whether it is about something that lasts.
    pub(super) fn is_standing(self) -> bool {
        matches!(self, Self::Level(_) | Self::Subscribe(_) | Self::Unsubscribe(_))
    }
}

#[derive(Debug, Default)]
pub(super) struct Subscribed {
    pub(super) peers: BTreeSet<LeaseId>,
    pub(super) asking: Option<Asking>,
}

/// While the first subscribe is in flight.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) tag: u64,
    pub(super) wanted: BTreeSet<LeaseId>,
    pub(super) waiting: Vec<Asker>,
}

/// A task that is not known to be over.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) task: u64,
    pub(super) peer: LeaseId,
    pub(super) token: Option<&'static str>,
}

/// A request of the child that a client has not answered.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) peer: LeaseId,
    /// The child's own id, and its own token.
    pub(super) id: String,
    pub(super) token: Option<&'static str>,
    pub(super) deadline: Instant,
}

/// The level that a session has, and the number that it has it by.
#[derive(Debug, Default)]
pub(super) struct Has {
    pub(super) level: Option<usize>,
    pub(super) by: u64,
}

/// The level that the child was told last, by which number, and whether it has taken it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) level: usize,
    pub(super) by: u64,
    pub(super) is_done: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) max_in_flight: usize,
    pub(super) open: BTreeMap<u64, Open>,
    pub(super) peers: BTreeMap<LeaseId, Has>,
    /// Those that another child is asked to do the same for.
    pub(super) handed_over: BTreeSet<LeaseId>,
    /// Those that have another child, and are there for what is in flight only.
    pub(super) leaving: BTreeSet<LeaseId>,
    /// Calls of clients that the child has answered.
    pub(super) answered: u64,
    pub(super) uris: BTreeMap<usize, Subscribed>,
    pub(super) told: Option<Told>,
    /// Requests of the gateway's own that the child has not answered; what is beyond the bound is forgotten.
    pub(super) own: BTreeSet<u64>,
    pub(super) tasks: BTreeMap<u64, LeaseId>,
    /// By the number that the child knows their calls by.
    pub(super) live: BTreeMap<u64, Live>,
    /// For whom the child may still work, and until when, by the same number.
    pub(super) abandoned: BTreeMap<u64, (LeaseId, Instant)>,
    /// Until when there is more of that than is remembered.
    pub(super) crowded: Option<Instant>,
    pub(super) elicitations: BTreeMap<u64, LeaseId>,
    /// By the number that the client knows them by.
    pub(super) asked: BTreeMap<u64, Asked>,
    /// Those that a client has answered with a task: who, and the child's own token.
    pub(super) answered_by_task: BTreeMap<u64, (LeaseId, &'static str)>,
}

impl Model {
    pub(super) fn new(max_in_flight: usize) -> Self {
        Self { max_in_flight, ..Self::default() }
    }

    pub(super) fn loudest(&self, but: Option<LeaseId>) -> Option<usize> {
        let mut levels: Vec<(LeaseId, usize)> = Vec::new();
        levels.extend(self.peers.iter().filter_map(|(peer, has)| Some((*peer, has.level?))));
        levels.extend(self.open.values().filter_map(|open| match open.what {
            What::Level(level) => Some((open.asker.peer, level)),
            _ => None,
        }));
        levels.into_iter().filter(|(peer, _)| Some(*peer) != but).map(|(_, level)| level).min()
    }

    pub(super) fn grant(&mut self, peer: LeaseId, level: usize, by: u64) {
        let has = self.peers.get_mut(&peer).unwrap();
        if has.by <= by {
            *has = Has { level: Some(level), by };
        }
    }

    /// What a session has of the child.
    pub(super) fn granted(&self, peer: LeaseId) -> (Option<&'static str>, BTreeSet<usize>) {
        let mut uris: BTreeSet<usize> =
            self.uris.iter().filter(|(_, uri)| uri.peers.contains(&peer)).map(|(number, _)| *number).collect();
        for open in self.open.values().filter(|open| open.asker.peer == peer && open.has_taken) {
            if let What::Unsubscribe(uri) = open.what {
                uris.insert(uri);
            }
        }
        (self.peers[&peer].level.map(|level| LEVELS[level]), uris)
    }

    /// A URI that nobody is subscribed to, or about to be, is no more than any other.
    pub(super) fn tidy(&mut self, uri: usize) {
        if self.uris.get(&uri).is_some_and(|subscribed| subscribed.peers.is_empty() && subscribed.asking.is_none()) {
            self.uris.remove(&uri);
        }
    }

    /// What became of what the child was told by this number.
    pub(super) fn told_by(&mut self, number: u64, is_done: bool) {
        if self.told.is_some_and(|told| told.by == number) {
            self.told = if is_done { self.told.map(|told| Told { is_done, ..told }) } else { None };
        }
    }

    fn alone(&self) -> Option<LeaseId> {
        self.peers.keys().next().copied().filter(|_| self.peers.len() == 1)
    }

    /// The one who can have caused something, if it is one, and still here.
    pub(super) fn causer(&self) -> Option<LeaseId> {
        let mut causers: BTreeSet<LeaseId> = self.open.values().map(|open| open.asker.peer).collect();
        causers.extend(self.abandoned.values().map(|(peer, _)| *peer).chain(self.alone()));
        let only = causers.first().copied().filter(|_| causers.len() == 1 && self.crowded.is_none());
        only.filter(|peer| self.peers.contains_key(peer))
    }

    /// The one who is here, if there is nobody else, and nobody who has left can have caused something.
    pub(super) fn only(&self) -> Option<LeaseId> {
        self.alone().filter(|alone| self.causer() == Some(*alone))
    }

    pub(super) fn note_abandoned(&mut self, wire: u64, peer: LeaseId, now: Instant) {
        self.abandoned.insert(wire, (peer, now + TIMEOUT));
        if self.abandoned.len() > self.max_in_flight {
            let (_, (_, until)) = self.abandoned.pop_first().unwrap();
            self.crowded = self.crowded.max(Some(until));
        }
    }

    /// The child has said something of a task.
    pub(super) fn heard_of(&mut self, task: u64, is_over: bool, now: Instant) {
        let found = self.live.iter().find(|(_, live)| live.task == task).map(|(wire, live)| (*wire, live.peer));
        match found {
            Some((wire, _)) if is_over => {
                self.live.remove(&wire);
                self.abandoned.remove(&wire);
            }
            Some((wire, peer)) => self.note_abandoned(wire, peer, now),
            None => {}
        }
    }

    /// The latest call of a session with this id that may be cancelled.
    pub(super) fn cancellable(&self, peer: LeaseId, id: &str) -> Option<u64> {
        let fits = |open: &Open| open.asker.peer == peer && open.asker.id == id && !open.asker.is_own;
        let found = self.open.iter().filter(|(_, open)| fits(open)).max_by_key(|(_, open)| open.wire);
        found.filter(|(_, open)| !matches!(open.what, What::Subscribe(_))).map(|(tag, _)| *tag)
    }

    /// Takes a session off: what the child should hear of it, and who should get an error.
    pub(super) fn leave(&mut self, peer: LeaseId, now: Instant) -> (Vec<String>, Vec<Asker>) {
        self.peers.remove(&peer);
        self.handed_over.remove(&peer);
        self.leaving.remove(&peer);
        let (mut frames, failed) = self.abandon(peer, |_| true, now);
        self.asked.retain(|_, asked| {
            let gone = asked.peer == peer;
            frames.extend(gone.then(|| format!("refuse {}", asked.id)));
            !gone
        });
        self.uris.retain(|uri, subscribed| {
            let was = subscribed.peers.remove(&peer);
            if was && subscribed.peers.is_empty() && subscribed.asking.is_none() {
                frames.push(format!("unsubscribe {uri}"));
            }
            !subscribed.peers.is_empty() || subscribed.asking.is_some()
        });
        if let Some(level) = self.loudest(None).filter(|level| self.told.is_none_or(|told| told.level != *level)) {
            // By a number that is known when the child hears it.
            self.told = Some(Told { level, by: 0, is_done: false });
            frames.push(format!("level {}", LEVELS[level]));
        }
        self.tasks.retain(|_, owner| *owner != peer);
        for live in self.live.values_mut().filter(|live| live.peer == peer) {
            live.token = None;
            frames.push(format!("end task {}", live.task));
        }
        self.answered_by_task.retain(|_, (owner, _)| *owner != peer);
        self.elicitations.retain(|_, owner| *owner != peer);
        (frames, failed)
    }

    /// Another child does the same for a session: what this one should hear, and who should get an error.
    pub(super) fn hand_over(&mut self, peer: LeaseId, now: Instant) -> (Vec<String>, Vec<Asker>) {
        self.handed_over.insert(peer);
        // To be rid of what it does not have is no standing request that another child could grant.
        let is_standing =
            |open: &Open| open.what.is_standing() && (open.has_taken || !matches!(open.what, What::Unsubscribe(_)));
        self.abandon(peer, is_standing, now)
    }

    /// A session waits for some of its calls no more.
    fn abandon(&mut self, peer: LeaseId, which: fn(&Open) -> bool, now: Instant) -> (Vec<String>, Vec<Asker>) {
        let (mut frames, mut failed) = (Vec::new(), Vec::new());
        for asking in self.uris.values_mut().filter_map(|subscribed| subscribed.asking.as_mut()) {
            asking.wanted.remove(&peer);
            let (own, others) = std::mem::take(&mut asking.waiting).into_iter().partition(|asker| asker.peer == peer);
            asking.waiting = others;
            failed.extend::<Vec<_>>(own);
        }
        let own = |(tag, open): (&u64, &Open)| (open.asker.peer == peer && which(open)).then_some((open.wire, *tag));
        let mut tags: Vec<(u64, u64)> = self.open.iter().filter_map(own).collect();
        tags.sort_unstable();
        for (_, tag) in tags {
            let Some(open) = self.open.get_mut(&tag) else { continue };
            if let What::Subscribe(uri) = open.what
                && let Some(asking) = self.uris.get_mut(&uri).and_then(|subscribed| subscribed.asking.as_mut())
                && !asking.waiting.is_empty()
            {
                open.token = None;
                failed.push(std::mem::replace(&mut open.asker, asking.waiting.remove(0)));
                continue;
            }
            self.give_up(tag, now, &mut frames, &mut failed);
        }
        (frames, failed)
    }

    /// A call is over without an answer, but the child may go on with it.
    fn give_up(&mut self, tag: u64, now: Instant, frames: &mut Vec<String>, failed: &mut Vec<Asker>) {
        let open = self.open.remove(&tag).unwrap();
        self.told_by(open.wire, false);
        frames.push(format!("cancel {}", open.wire));
        self.note_abandoned(open.wire, open.asker.peer, now);
        if let What::Subscribe(uri) = open.what {
            let subscribed = self.uris.get_mut(&uri).unwrap();
            failed.extend(subscribed.asking.take().unwrap().waiting);
            // Whoever is leaving has it no more.
            subscribed.peers.retain(|peer| self.peers.contains_key(peer));
            frames.extend(subscribed.peers.is_empty().then(|| format!("unsubscribe {uri}")));
            self.tidy(uri);
        }
        failed.push(open.asker);
    }

    /// Gives up what has run out of time: what the child should hear of it, who should get an error, and who need not
    /// answer what any more.
    pub(super) fn expire(&mut self, now: Instant) -> (Vec<String>, Vec<Asker>, Vec<(LeaseId, u64)>) {
        let (mut frames, mut failed, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
        self.abandoned.retain(|_, (_, until)| *until > now);
        self.crowded = self.crowded.filter(|until| *until > now);
        let late = |(tag, open): (&u64, &Open)| (open.deadline <= now).then_some((open.wire, *tag));
        let mut tags: Vec<(u64, u64)> = self.open.iter().filter_map(late).collect();
        tags.sort_unstable();
        tags.into_iter().for_each(|(_, tag)| self.give_up(tag, now, &mut frames, &mut failed));
        self.asked.retain(|number, asked| {
            if asked.deadline <= now {
                frames.push(format!("refuse {}", asked.id));
                withdrawn.push((asked.peer, *number));
            }
            asked.deadline > now
        });
        (frames, failed, withdrawn)
    }

    /// The child is gone: who should get an error, and who need not answer what any more.
    pub(super) fn fail_all(&mut self) -> (Vec<Asker>, Vec<(LeaseId, u64)>) {
        let mut failed = Vec::new();
        for open in std::mem::take(&mut self.open).into_values() {
            self.told_by(open.wire, false);
            if let (What::Unsubscribe(uri), true) = (open.what, open.has_taken) {
                self.uris.entry(uri).or_default().peers.insert(open.asker.peer);
            }
            failed.push(open.asker);
        }
        let asking = self.uris.values_mut().filter_map(|subscribed| subscribed.asking.take());
        failed.extend(asking.flat_map(|asking| asking.waiting));
        let asked = std::mem::take(&mut self.asked);
        (failed, asked.into_iter().map(|(number, asked)| (asked.peer, number)).collect())
    }

    fn waiting(&self) -> impl Iterator<Item = &Asker> {
        self.uris.values().filter_map(|subscribed| subscribed.asking.as_ref()).flat_map(|asking| &asking.waiting)
    }

    /// Whether somebody still waits for the answer to what was asked with this exchange.
    pub(super) fn is_pending(&self, exchange: &Arc<Exchange>) -> bool {
        let askers = self.open.values().map(|open| &open.asker).chain(self.waiting());
        askers.into_iter().any(|asker| Arc::ptr_eq(&asker.exchange, exchange))
    }

    /// Whether a session waits for something that lasts.
    pub(super) fn has_standing_request(&self, peer: LeaseId) -> bool {
        let asks = |open: &Open| match open.what {
            What::Unsubscribe(_) => open.has_taken,
            what => what.is_standing(),
        };
        self.open.values().any(|open| open.asker.peer == peer && asks(open))
            || self.waiting().any(|asker| asker.peer == peer)
    }

    /// Calls that the client of a session waits for, and the child has heard.
    pub(super) fn in_flight(&self, peer: LeaseId) -> usize {
        self.open.values().filter(|open| open.asker.peer == peer && !open.asker.is_own).count()
    }

    /// Whether nothing is in flight, either way.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.asked.is_empty()
    }

    /// Who is leaving, and has nothing in flight any more.
    pub(super) fn ready_to_leave(&self) -> Vec<LeaseId> {
        let has_call = |peer| self.open.values().any(|open| open.asker.peer == peer);
        let is_asked = |peer| self.asked.values().any(|asked| asked.peer == peer);
        let waits = |peer| self.waiting().any(|asker| asker.peer == peer);
        let is_ready = |peer: &LeaseId| !has_call(*peer) && !is_asked(*peer) && !waits(*peer);
        self.leaving.iter().copied().filter(is_ready).collect()
    }
}
