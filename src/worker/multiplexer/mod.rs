//! The tables of what is in flight on one child, both ways. It rewrites ids and progress tokens and does no I/O.
//!
//! Invariant: an answer reaches the exchange that asked, or nobody. Every request gets a number of this worker's own;
//! only that number, still in flight, leads back to an exchange, and it does so once. Where sessions share the child,
//! each gets its own only, or what concerns all of them.

mod incoming;
mod outgoing;
mod params;
mod sharing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

pub(super) use incoming::Incoming;
pub(super) use outgoing::Outgoing;
use params::Params;
use sharing::{Level, Owners, Subscriptions, Waiting};

use super::lists::Lists;
use super::peer::InFlight;
use super::resend::Kept;
use crate::jsonrpc::{Code, Envelope, RawId, Splice, error_response, one_line, splice};
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
    /// The URI, while a shared child is asked for the first subscription to it.
    subscribing: Option<String>,
    progress_token: Option<RawId>,
    /// Whether it asks for the first page of a list.
    pub(super) is_first_page: bool,
    /// What another child would need, should this one crash.
    pub(super) kept: Option<Kept>,
    deadline: Instant,
    timeout: Duration,
}

/// A request of the server that the client has not answered yet.
#[derive(Debug)]
struct Asked {
    peer: PeerId,
    original: RawId,
    deadline: Instant,
    timeout: Duration,
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
}

/// What has run out of time, or lost its client.
#[derive(Debug, Default)]
pub(super) struct Expired {
    /// Calls to fail.
    pub(super) calls: Vec<Call>,
    /// Others that waited for the answers to these.
    pub(super) waiting: Vec<Waiting>,
    /// Frames for the child: cancellations, and errors for requests of its own.
    pub(super) frames: Vec<Bytes>,
}

/// What a session wants of the child.
#[derive(Debug, Default)]
struct Peering {
    level: Option<Level>,
}

/// The tables of one worker.
#[derive(Debug)]
pub(super) struct Multiplexer {
    next: u64,
    is_shared: bool,
    calls: BTreeMap<u64, Call>,
    asked: BTreeMap<u64, Asked>,
    /// Requests of the gateway's own whose answers nobody needs.
    unheeded: BTreeSet<u64>,
    peers: BTreeMap<PeerId, Peering>,
    subscriptions: Subscriptions,
    /// The level that the child has been told.
    level: Option<Level>,
    tasks: Owners,
    elicitations: Owners,
    lists: Lists,
    max_in_flight: usize,
    total: u64,
    answered: u64,
    is_closed: bool,
}

impl Multiplexer {
    /// Empty tables. `is_shared`: sessions of different owners may be on the child at the same time.
    pub(super) fn new(max_in_flight: usize, is_shared: bool) -> Self {
        Self {
            next: 1,
            is_shared,
            calls: BTreeMap::new(),
            asked: BTreeMap::new(),
            unheeded: BTreeSet::new(),
            peers: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            level: None,
            tasks: Owners::default(),
            elicitations: Owners::default(),
            lists: Lists::default(),
            max_in_flight,
            total: 0,
            answered: 0,
            is_closed: false,
        }
    }

    /// Takes no more calls, if nothing is in flight.
    pub(super) fn close_if_idle(&mut self) -> bool {
        self.is_closed |= self.is_idle();
        self.is_closed
    }

    /// Calls that the child has answered, `initialize` left out.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// What its lists were like.
    pub(super) fn lists(&self) -> Lists {
        self.lists.clone()
    }

    /// Calls so far.
    pub(super) fn total(&self) -> u64 {
        self.total
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

    /// Takes a session off the child: its calls are cancelled, what only it wanted is given up.
    pub(super) fn detach(&mut self, peer: PeerId) -> Expired {
        let mut gone = Expired::default();
        if self.peers.remove(&peer).is_none() {
            return gone;
        }
        let (unused, waiting) = self.subscriptions.forget(peer);
        gone.waiting = waiting;
        let calls: Vec<u64> = self.calls.iter().filter(|(_, call)| call.peer == peer).map(|(n, _)| *n).collect();
        for number in calls {
            if !self.hand_over(number, &mut gone) {
                self.give_up(number, "the session has ended", &mut gone);
            }
        }
        let asked: Vec<u64> = self.asked.iter().filter(|(_, a)| a.peer == peer).map(|(n, _)| *n).collect();
        for asked in asked.into_iter().filter_map(|number| self.asked.remove(&number)) {
            gone.frames.push(refusal(&asked.original, "the client has gone"));
        }
        for uri in unused {
            let params = serde_json::json!({ "uri": uri });
            let frame = self.own_request("resources/unsubscribe", &params);
            gone.frames.push(frame);
        }
        if self.is_shared
            && let Some(frame) = self.relevel()
        {
            gone.frames.push(frame);
        }
        self.tasks.forget(peer);
        self.elicitations.forget(peer);
        gone
    }

    fn loudest(&self) -> Option<Level> {
        self.peers.values().filter_map(|peering| peering.level).min()
    }

    /// The frame that tells the child of another loudest level, if there is one.
    fn relevel(&mut self) -> Option<Bytes> {
        let loudest = self.loudest()?;
        if self.level == Some(loudest) {
            return None;
        }
        self.level = Some(loudest);
        Some(self.own_request("logging/setLevel", &serde_json::json!({ "level": loudest.as_str() })))
    }

    fn own_request(&mut self, method: &str, params: &serde_json::Value) -> Bytes {
        let number = self.number();
        self.unheeded.insert(number);
        let request = format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{params}}}"#);
        one_line(BytesMut::from(request.as_bytes()))
    }

    /// Takes back the call that was registered last, because its frame could not be queued.
    pub(super) fn forget_last(&mut self) {
        if let Some((_, call)) = self.calls.pop_last() {
            self.untold(call.method, call.subscribing);
        }
    }

    /// The child has not heard what it was to hear: the next who wants the same tells it.
    fn untold(&mut self, method: &str, subscribing: Option<String>) {
        if let Some(uri) = subscribing {
            self.subscriptions.subscribed(&uri, None, false);
        }
        if method == "logging/setLevel" {
            self.level = None;
        }
    }

    /// The client cancels: the frame for the child, and the call, which is over. `None` if no such call of this session
    /// is in flight, or it is `initialize`, which must not be cancelled.
    pub(super) fn cancel(&mut self, peer: PeerId, message: &[u8], envelope: &Envelope<'_>) -> Option<(Bytes, Call)> {
        let old = Params::read(envelope.params).request_id?.get();
        let original = RawId::new(old)?;
        let is_it = |call: &Call| call.peer == peer && call.original == original && !call.is_initialize;
        // Clients that use one id for everything mean the latest call.
        let number = self.calls.iter().rev().find(|(_, call)| is_it(call)).map(|(number, _)| *number)?;
        // Others may wait for this answer: it goes on for them.
        if self.calls.get(&number).is_some_and(|call| call.subscribing.is_some()) {
            return None;
        }
        let call = self.calls.remove(&number)?;
        let frame = one_line(splice(message, &mut [Splice { old, new: &number.to_string() }]));
        Some((frame, call))
    }

    /// The client answers a request of the server: the frame for the child, or `None` if this session was not asked.
    pub(super) fn answered_by_client(
        &mut self,
        peer: PeerId,
        message: &[u8],
        envelope: &Envelope<'_>,
    ) -> Option<Bytes> {
        let id = envelope.id?;
        let number = RawId::new(id)?.as_u64()?;
        if self.asked.get(&number)?.peer != peer {
            return None;
        }
        let asked = self.asked.remove(&number)?;
        Some(one_line(splice(message, &mut [Splice { old: id, new: asked.original.as_str() }])))
    }

    /// A notification of the client: the frame for the child, or `None` if a shared child must not hear it.
    pub(super) fn notified_by_client(&self, message: &[u8], method: &str) -> Option<Bytes> {
        // A shared child has been offered no roots.
        if self.is_shared && method == "notifications/roots/list_changed" {
            return None;
        }
        Some(one_line(BytesMut::from(message)))
    }

    /// A request of the server could not be put to the client: the error for the child.
    pub(super) fn undelivered(&mut self, number: u64) -> Option<Bytes> {
        let asked = self.asked.remove(&number)?;
        Some(refusal(&asked.original, "the client has no open stream to be asked on"))
    }

    /// The calls of a session that something unsolicited may belong to.
    pub(super) fn in_flight(&self, peer: PeerId) -> InFlight {
        let mut in_flight = InFlight::default();
        for call in self.calls.values().filter(|call| call.peer == peer && !call.is_initialize) {
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
        self.calls.values().all(|call| call.peer != peer) && self.asked.values().all(|asked| asked.peer != peer)
    }

    /// Calls in flight.
    pub(super) fn load(&self) -> usize {
        self.calls.len()
    }

    /// When the oldest call in flight was made.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.calls.values().filter(|call| !call.is_initialize).map(|call| call.started).min()
    }

    /// Removes what has run out of time.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        let late: Vec<u64> = self.calls.iter().filter(|(_, c)| c.deadline <= now).map(|(n, _)| *n).collect();
        for number in late {
            self.give_up(number, "timed out", &mut expired);
        }
        let late: Vec<u64> = self.asked.iter().filter(|(_, a)| a.deadline <= now).map(|(n, _)| *n).collect();
        for asked in late.into_iter().filter_map(|number| self.asked.remove(&number)) {
            let text = format!("the client did not answer within {:?}", asked.timeout);
            expired.frames.push(refusal(&asked.original, &text));
        }
        expired
    }

    /// A first subscription that others wait for as well goes on, as that of the next of them: it is not cancelled.
    fn hand_over(&mut self, number: u64, gone: &mut Expired) -> bool {
        let Some(call) = self.calls.get_mut(&number) else { return false };
        let next = call.subscribing.as_deref().and_then(|uri| self.subscriptions.next_waiting(uri));
        let Some(Waiting { peer, id, exchange }) = next else { return false };
        let heir = Call {
            peer,
            original: id,
            exchange,
            subscribing: call.subscribing.take(),
            progress_token: None,
            kept: None,
            ..*call
        };
        gone.calls.push(std::mem::replace(call, heir));
        true
    }

    fn give_up(&mut self, number: u64, why: &str, expired: &mut Expired) {
        let Some(call) = self.calls.remove(&number) else { return };
        if !call.is_initialize {
            expired.frames.push(cancelled(number, why));
        }
        if let Some(uri) = &call.subscribing {
            expired.waiting.extend(self.subscriptions.subscribed(uri, None, false));
        }
        expired.calls.push(call);
    }

    /// Empties the tables: the calls that were in flight, and who waited with them.
    pub(super) fn drain(&mut self) -> Expired {
        self.asked.clear();
        let mut all = Expired::default();
        for call in std::mem::take(&mut self.calls).into_values() {
            if let Some(uri) = &call.subscribing {
                all.waiting.extend(self.subscriptions.subscribed(uri, None, false));
            }
            all.calls.push(call);
        }
        all
    }
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

fn cancelled(number: u64, why: &str) -> Bytes {
    let text = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number},"reason":"{why}"}}}}"#
    );
    one_line(BytesMut::from(text.as_bytes()))
}
