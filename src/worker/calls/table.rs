//! The tables of what is in flight on one child, both ways.
//!
//! Invariant: an answer reaches the exchange that asked, or nobody. Every request gets a number of this worker's own;
//! only that number, still in flight, leads back to an exchange, and it does so once. Where sessions share the child,
//! each gets its own only, or what concerns all of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::abandoned::AbandonedCalls;
use super::asked::Asked;
use super::call::Call;
use super::deadline::DeadlineTimer;
use super::lease_id::LeaseId;
use super::live_tasks::LiveTasks;
use super::numbers::{self, Number, NumberHasher};
use super::owners::Owners;
use super::standing::{LeaseState, Told};
use super::subscriptions::Subscriptions;
use super::unsolicited::InFlight;
use crate::jsonrpc::{Code, RawId, error_response, one_line, own_request};

/// The tables of one worker.
#[derive(Debug)]
pub(in crate::worker) struct Multiplexer {
    /// How many numbers have been given out.
    pub(super) given: u64,
    pub(super) is_shared: bool,
    /// In no order: the numbers are random.
    pub(super) calls: HashMap<u64, Box<Call>, BuildHasherDefault<NumberHasher>>,
    pub(super) asked: BTreeMap<u64, Asked>,
    /// Requests of the server that the client has answered with a task, and what the child calls their progress, which
    /// goes on. Bounded by `max_in_flight`.
    pub(super) answered_by_task: VecDeque<(u64, LeaseId, RawId)>,
    /// Requests of the gateway's own whose answers nobody needs, the oldest first. Bounded by `max_in_flight`.
    pub(super) unheeded: VecDeque<u64>,
    pub(super) peers: BTreeMap<LeaseId, LeaseState>,
    pub(super) subscriptions: Subscriptions,
    /// The level that the child was told last, unless it refused it or it is not known what became of it.
    pub(super) told: Option<Told>,
    pub(super) tasks: Owners,
    pub(super) live_tasks: LiveTasks,
    pub(super) abandoned: AbandonedCalls,
    pub(super) elicitations: Owners,
    pub(super) max_in_flight: usize,
    /// How long a call may take before the child has to go for it.
    pub(super) harakiri: Option<Duration>,
    /// How long the child is believed to go on with a call that it was told is cancelled.
    pub(super) cancel_grace: Option<Duration>,
    pub(super) timer: DeadlineTimer,
    pub(super) total: u64,
    pub(super) answered: u64,
}

impl Multiplexer {
    /// Empty tables. `is_shared`: sessions of different owners may be on the child at the same time.
    pub(in crate::worker) fn new(max_in_flight: usize, is_shared: bool) -> Self {
        Self {
            given: 0,
            is_shared,
            calls: HashMap::default(),
            asked: BTreeMap::new(),
            answered_by_task: VecDeque::new(),
            unheeded: VecDeque::new(),
            peers: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            told: None,
            tasks: Owners::default(),
            live_tasks: LiveTasks::new(max_in_flight),
            abandoned: AbandonedCalls::new(max_in_flight),
            elicitations: Owners::default(),
            max_in_flight,
            harakiri: None,
            cancel_grace: None,
            timer: DeadlineTimer::default(),
            total: 0,
            answered: 0,
        }
    }

    /// A call may take so long, whatever its own time is, before the child has to go for it.
    pub(in crate::worker) fn with_harakiri(self, harakiri: Option<Duration>) -> Self {
        Self { harakiri, ..self }
    }

    /// A call that the child was told is cancelled counts for so long among what it may work for, and not for its own time.
    pub(in crate::worker) fn with_cancel_grace(self, cancel_grace: Option<Duration>) -> Self {
        Self { cancel_grace, ..self }
    }

    /// When something may be out of time that is in flight.
    pub(in crate::worker) fn timer(&mut self) -> &mut DeadlineTimer {
        &mut self.timer
    }

    /// Calls of clients that the child has answered.
    pub(in crate::worker) fn answered(&self) -> u64 {
        self.answered
    }

    /// A number for a request, which the child has for nothing else that it may still speak of.
    pub(super) fn number(&mut self) -> Number {
        self.given += 1;
        Number {
            wire: numbers::for_call(|number| self.calls.contains_key(&number) || self.is_remembered(number)),
            order: self.given,
        }
    }

    /// Whether the child may still speak of a request by this number that is no call in flight.
    pub(super) fn is_remembered(&self, number: u64) -> bool {
        self.unheeded.contains(&number) || self.abandoned.has(number) || self.live_tasks.has(number)
    }

    /// Puts a session on the child.
    pub(in crate::worker) fn attach(&mut self, peer: LeaseId) {
        self.peers.insert(peer, LeaseState::default());
    }

    /// A request of the gateway's own, whose answer nobody needs. `params` is JSON.
    pub(super) fn own_request(&mut self, method: &str, params: &str) -> (Number, Bytes) {
        let number = self.number();
        self.unheeded.push_back(number.wire);
        if self.unheeded.len() > self.max_in_flight {
            self.unheeded.pop_front();
        }
        (number, own_request(number.wire, method, params))
    }

    /// Whether the gateway has asked by this number, which is forgotten.
    pub(super) fn was_unheeded(&mut self, number: u64) -> bool {
        let place = self.unheeded.iter().position(|unheeded| *unheeded == number);
        place.and_then(|place| self.unheeded.remove(place)).is_some()
    }

    /// Takes back a call, because its frame could not be queued: the child has not heard what it was to hear, and the next
    /// who wants the same tells it.
    pub(in crate::worker) fn forget(&mut self, number: u64) {
        if let Some(call) = self.take_call(number) {
            self.unsay(number, &call);
        }
    }

    /// The calls of a session that something unsolicited may belong to.
    pub(in crate::worker) fn in_flight(&self, peer: LeaseId) -> InFlight {
        if self.waits(peer) == 0 {
            return InFlight::default();
        }
        let mut count = 0;
        let calls = self.calls.values().filter(|call| call.peer == peer && !call.is_own);
        let latest = calls.inspect(|_| count += 1).max_by_key(|call| call.number.order);
        InFlight { latest: latest.map(|call| Arc::clone(&call.exchange)), count }
    }

    /// What the tables still hold though nobody is on the child, apart from what the child has not said to be over: tasks, and
    /// requests whose answers nobody needs.
    #[cfg(test)]
    pub(in crate::worker) fn left_behind(&self) -> Vec<String> {
        let tables: [(&dyn std::fmt::Debug, bool); 8] = [
            (&self.calls, self.calls.is_empty()),
            (&self.asked, self.asked.is_empty()),
            (&self.answered_by_task, self.answered_by_task.is_empty()),
            (&self.peers, self.peers.is_empty()),
            (&self.subscriptions, self.subscriptions.is_empty()),
            (&self.tasks, self.tasks.is_empty()),
            (&self.abandoned, self.abandoned.is_empty()),
            (&self.elicitations, self.elicitations.is_empty()),
        ];
        tables.into_iter().filter(|(_, is_empty)| !is_empty).map(|(table, _)| format!("{table:?}")).collect()
    }

    /// Whether nothing is in flight, either way, and no task is left that its session may come back for.
    pub(in crate::worker) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.asked.is_empty() && self.live_tasks.awaited().next().is_none()
    }

    /// Whether nothing of this session is in flight, either way, nor a task of it left.
    pub(in crate::worker) fn is_idle_for(&self, peer: LeaseId) -> bool {
        self.is_done_for(peer) && self.live_tasks.awaited().all(|task| task.peer != peer)
    }

    /// Whether the child has nothing to do for this session, though there may be results of tasks to be fetched.
    pub(in crate::worker) fn is_done_for(&self, peer: LeaseId) -> bool {
        self.waits(peer) == 0
            && self.asked.values().all(|asked| asked.peer != peer)
            && self.live_tasks.awaited().all(|task| task.peer != peer || task.is_over)
    }

    /// How many answers a session waits for.
    pub(super) fn waits(&self, peer: LeaseId) -> usize {
        self.peers.get(&peer).map_or(0, |state| state.in_flight)
    }

    /// Calls in flight.
    pub(in crate::worker) fn load(&self) -> usize {
        self.calls.len()
    }

    /// When the oldest call in flight was made.
    pub(in crate::worker) fn oldest(&self) -> Option<Instant> {
        self.calls.values().filter(|call| !call.is_initialize()).map(|call| call.started).min()
    }
}

/// The error for a request of the child that no client answers, as a frame.
pub(super) fn refusal(id: &RawId, text: &str) -> Bytes {
    one_line(BytesMut::from(error_response(Some(id), Code::Internal, text).as_ref()))
}
