//! The tables of what is in flight on one child, both ways. It rewrites ids and progress tokens and does no I/O.
//!
//! Invariant: an answer reaches the exchange that asked, or nobody. Every request gets a number of this worker's own;
//! only that number, still in flight, leads back to an exchange, and it does so once. Where sessions share the child,
//! each gets its own only, or what concerns all of them.

mod client;
mod ending;
mod incoming;
mod lingering;
mod outgoing;
mod params;
mod retiring;
mod sharing;
mod tasks;
#[cfg(test)]
mod tests;
mod uri;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use client::Asked;
pub(super) use client::Notified;
pub(super) use ending::{Expired, Withdrawn};
pub(super) use incoming::{Answer, Incoming};
use lingering::Lingering;
pub(super) use outgoing::Outgoing;
use sharing::{Level, Owners, Subscriptions};
use tasks::LiveTasks;

use super::alarm::Alarm;
use super::lists::Lists;
use super::peer::InFlight;
use super::resend::Kept;
use crate::jsonrpc::{Code, Envelope, RawId, error_response, one_line};
use crate::stream::Exchange;

/// A session on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(super) u64);

/// A call in flight.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) peer: PeerId,
    pub(super) original: RawId,
    pub(super) exchange: Arc<Exchange>,
    pub(super) method: &'static str,
    pub(super) started: Instant,
    pub(super) is_initialize: bool,
    /// Whether it is the gateway's, and no client's.
    is_own: bool,
    /// What it changes for all who share the child.
    change: Option<Change>,
    /// The task that it asks about.
    task: Option<String>,
    progress_token: Option<RawId>,
    /// Whether it asks for the first page of a list.
    pub(super) is_first_page: bool,
    /// What another child would need, should this one crash.
    pub(super) kept: Option<Kept>,
    deadline: Instant,
    timeout: Duration,
}

/// What a call changes for all who share the child, once the child has heard it.
#[derive(Debug)]
enum Change {
    /// It is the first to subscribe to a URI.
    Subscribe(String),
    /// It ends the last subscription to a URI.
    Unsubscribe(String),
    /// It asks for this level; what the child is told is the loudest.
    Level(Level),
}

/// A request on its way to the child.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The whole message.
    pub message: &'a [u8],
    /// Its envelope.
    pub envelope: &'a Envelope<'a>,
    /// Where the answer goes.
    pub exchange: &'a Arc<Exchange>,
    /// Time until the answer; progress starts it anew.
    pub timeout: Duration,
    /// Whether the gateway asks for itself, such as when it tells a child what the one before it was told. That is no use
    /// that a client makes of the child, and what the child says meanwhile is not for the gateway.
    pub is_own: bool,
}

/// What a session has of the child.
#[derive(Debug, Default)]
struct Peering {
    /// Its log level, once the child has taken it.
    level: Option<Level>,
    /// The number of the request that was for it: what is older and answered later does not change it.
    by: u64,
    /// It has another child, and stays for what is in flight on this one only.
    is_leaving: bool,
}

/// The level that the child was told last.
#[derive(Debug, Clone, Copy)]
struct Told {
    level: Level,
    /// The number of the request.
    by: u64,
    /// Whether the child has taken it.
    is_done: bool,
}

/// The tables of one worker.
#[derive(Debug)]
pub(super) struct Multiplexer {
    next: u64,
    next_asked: u64,
    is_shared: bool,
    calls: BTreeMap<u64, Call>,
    asked: BTreeMap<u64, Asked>,
    /// Requests of the server that the client has answered with a task, and what the child calls their progress, which
    /// goes on. Bounded by `max_in_flight`.
    answered_by_task: BTreeMap<u64, (PeerId, RawId)>,
    /// Requests of the gateway's own whose answers nobody needs. Bounded by `max_in_flight`.
    unheeded: BTreeSet<u64>,
    peers: BTreeMap<PeerId, Peering>,
    subscriptions: Subscriptions,
    /// The level that the child was told last, unless it refused it or it is not known what became of it.
    told: Option<Told>,
    tasks: Owners,
    live_tasks: LiveTasks,
    lingering: Lingering,
    elicitations: Owners,
    lists: Lists,
    max_in_flight: usize,
    /// How long a call may take before the child has to go for it.
    harakiri: Option<Duration>,
    alarm: Alarm,
    total: u64,
    answered: u64,
}

impl Multiplexer {
    /// Empty tables. `is_shared`: sessions of different owners may be on the child at the same time.
    pub(super) fn new(max_in_flight: usize, is_shared: bool) -> Self {
        Self {
            next: 1,
            next_asked: first_asked(),
            is_shared,
            calls: BTreeMap::new(),
            asked: BTreeMap::new(),
            answered_by_task: BTreeMap::new(),
            unheeded: BTreeSet::new(),
            peers: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            told: None,
            tasks: Owners::default(),
            live_tasks: LiveTasks::new(max_in_flight),
            lingering: Lingering::new(max_in_flight),
            elicitations: Owners::default(),
            lists: Lists::default(),
            max_in_flight,
            harakiri: None,
            alarm: Alarm::default(),
            total: 0,
            answered: 0,
        }
    }

    /// A call may take so long, whatever its own time is, before the child has to go for it.
    pub(super) fn with_harakiri(self, harakiri: Option<Duration>) -> Self {
        Self { harakiri, ..self }
    }

    /// When something may be out of time that is in flight.
    pub(super) fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    /// Calls of clients that the child has answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// What its lists were like.
    pub(super) fn lists(&self) -> Lists {
        self.lists.clone()
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Puts a session on the child.
    pub(super) fn attach(&mut self, peer: PeerId) {
        self.peers.insert(peer, Peering::default());
    }

    /// The loudest level that a session has or has asked for, but for this one.
    fn loudest(&self, but: Option<PeerId>) -> Option<Level> {
        let have = self.peers.iter().map(|(peer, peering)| (*peer, peering.level));
        let wanted = self.calls.values().map(|call| match call.change {
            Some(Change::Level(level)) => (call.peer, Some(level)),
            _ => (call.peer, None),
        });
        have.chain(wanted).filter(|(peer, _)| Some(*peer) != but).filter_map(|(_, level)| level).min()
    }

    /// The child has taken a level of a session, by the request with this number.
    fn grant(&mut self, peer: PeerId, level: Level, number: u64) {
        if let Some(peering) = self.peers.get_mut(&peer).filter(|peering| peering.by <= number) {
            (peering.level, peering.by) = (Some(level), number);
        }
    }

    /// The request with this number is over: the child has done it, or nobody can tell. Then whoever wants the same next
    /// tells it again.
    fn level_over(&mut self, number: u64, is_done: bool) {
        if let Some(told) = self.told.filter(|told| told.by == number) {
            self.told = is_done.then_some(Told { is_done, ..told });
        }
    }

    /// The frame that tells the child of another loudest level, if there is one.
    fn relevel(&mut self) -> Option<Bytes> {
        let loudest = self.loudest(None)?;
        if self.told.is_some_and(|told| told.level == loudest) {
            return None;
        }
        self.told = Some(Told { level: loudest, by: self.next, is_done: false });
        Some(self.own_request("logging/setLevel", &serde_json::json!({ "level": loudest.as_str() })))
    }

    fn own_request(&mut self, method: &str, params: &serde_json::Value) -> Bytes {
        let number = self.number();
        self.unheeded.insert(number);
        if self.unheeded.len() > self.max_in_flight {
            self.unheeded.pop_first();
        }
        let request = format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{params}}}"#);
        one_line(BytesMut::from(request.as_bytes()))
    }

    fn unsubscription(&mut self, uri: &str) -> Bytes {
        self.own_request("resources/unsubscribe", &serde_json::json!({ "uri": uri }))
    }

    /// Takes back the call that was registered last, because its frame could not be queued: the child has not heard
    /// what it was to hear, and the next who wants the same tells it.
    pub(super) fn forget_last(&mut self) {
        let Some((number, call)) = self.calls.pop_last() else { return };
        match call.change {
            Some(Change::Subscribe(uri)) => drop(self.subscriptions.subscribed(&uri, false)),
            Some(Change::Unsubscribe(uri)) => self.subscriptions.hold(&uri, call.peer),
            Some(Change::Level(_)) => self.level_over(number, false),
            None => {}
        }
    }

    /// The calls of a session that something unsolicited may belong to.
    pub(super) fn in_flight(&self, peer: PeerId) -> InFlight {
        let mut in_flight = InFlight::default();
        for call in self.calls.values().filter(|call| call.peer == peer && !call.is_own) {
            in_flight.count += 1;
            in_flight.latest = Some(Arc::clone(&call.exchange));
        }
        in_flight
    }

    /// Whether nothing is in flight, either way.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.asked.is_empty()
    }

    /// Whether nothing of this session is in flight, either way.
    pub(super) fn is_idle_for(&self, peer: PeerId) -> bool {
        self.calls.values().all(|call| call.peer != peer)
            && self.asked.values().all(|asked| asked.peer != peer)
            && self.subscriptions.waiting().all(|waiting| waiting.peer != peer)
    }

    /// Calls in flight.
    pub(super) fn load(&self) -> usize {
        self.calls.len()
    }

    /// When the oldest call in flight was made.
    pub(super) fn oldest(&self) -> Option<Instant> {
        // They are numbered in the order in which they were made.
        self.calls.values().find(|call| !call.is_initialize).map(|call| call.started)
    }
}

/// The number of the first request of a child to a client: by chance, so that what a client still says to a child that is
/// gone is not taken for something it says to the next.
fn first_asked() -> u64 {
    let mut bytes = [0; 4];
    // Without randomness it is a small number: no harm but to that.
    let _ = getrandom::fill(&mut bytes);
    // There are clients that read ids as 32 bits.
    u64::from(u32::from_ne_bytes(bytes) >> 2)
}

impl Call {
    /// The time that it was given.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

fn refusal(id: &RawId, text: &str) -> Bytes {
    one_line(BytesMut::from(error_response(Some(id), Code::Internal, text).as_ref()))
}
