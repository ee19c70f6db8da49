//! The pending queue of a link: messages of the client that no child has taken yet, in order and within bounds.
//!
//! Invariant: a message is parsed before it is queued, and never under a lock. The cost of finding or removing one
//! message does not grow with the number of queued bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::ChildLimits;
use crate::jsonrpc::RawId;
use crate::stream::{Budget, Exchange, Usage};
use crate::worker::{Failure, Orphan};

#[cfg(test)]
mod tests;

/// The longest id of a queued request, in bytes. A child accepts no longer id either.
pub(super) const MAX_ID: usize = 1024;

/// The position of a message in the queue. Calls that a child has crashed over come before all others; otherwise
/// messages keep the order of their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// `false` for a call that a child has crashed over; `false` sorts first.
    is_first_try: bool,
    /// The number of the message in the order of arrival.
    number: u64,
}

/// A queued message of the client.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// The position in the queue.
    position: Position,
    /// The message, byte for byte.
    pub(super) message: Bytes,
    /// The client's id, if the message is a request.
    id: Option<RawId>,
    /// The exchange that receives the answer.
    pub(super) exchange: Arc<Exchange>,
    /// When a child that takes no new calls first refused the message; `None` if none has.
    refused_since: Option<Instant>,
    /// How long the message may stay queued; `None` for messages that are not requests.
    pub(super) timeout: Option<Duration>,
    /// When the message was queued.
    since: Instant,
    /// Whether a child has exited at the moment of taking the message. A second exit fails the message.
    pub(super) was_tried: bool,
    /// For a call that a child has crashed over: the tool, and the failure if the call is not sent again.
    pub(super) retry: Option<(Arc<str>, Failure)>,
}

/// The queue of a link. Its bounds are those of a child: `max_in_flight` messages and `stdin_queue` bytes.
#[derive(Debug, Default)]
pub(super) struct PendingQueue {
    /// The messages in the order in which they will be sent.
    queue: BTreeMap<Position, Pending>,
    /// The positions of the requests with each id.
    by_id: HashMap<RawId, BTreeSet<Position>>,
    /// The number of queued messages and of their bytes.
    usage: Usage,
    /// The number of messages queued so far.
    next: u64,
    /// Whether a drain token exists. Until the token is returned, every new message is queued behind the others.
    pub(super) is_being_drained: bool,
}

/// The token of the single task that drains the queue. [`PendingQueue::first`] takes the token back when the queue is
/// empty; from then on another task may drain.
#[derive(Debug)]
pub(super) struct DrainToken(());

impl Pending {
    /// Notes that a child has refused the message because the child takes no new calls. Returns the time since the
    /// first such refusal.
    pub(super) fn refused_for(&mut self) -> Duration {
        self.refused_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// The error response for this message, if it is a request. A call that a child has crashed over fails with that
    /// crash, any other with `failure`.
    pub(super) fn response(&self, failure: &Failure) -> Option<Bytes> {
        let failure = self.retry.as_ref().map_or(failure, |(_, crash)| crash);
        self.id.as_ref().map(|id| failure.response(id))
    }
}

impl PendingQueue {
    /// Claims the drain token although the queue may be empty: new messages are queued until the token is used. `None`
    /// if the token exists already.
    pub(super) fn reserve(&mut self) -> Option<DrainToken> {
        let is_free = !self.is_being_drained;
        self.is_being_drained = true;
        is_free.then_some(DrainToken(()))
    }

    /// Claims the drain token if messages are queued and no token exists.
    pub(super) fn claim(&mut self) -> Option<DrainToken> {
        if self.queue.is_empty() { None } else { self.reserve() }
    }

    /// Queues a message, with the `id` and the time-out of a request. Returns `false` if the queue is full. An empty
    /// queue takes a message of any size.
    pub(super) fn push(
        &mut self,
        message: Bytes,
        id: Option<RawId>,
        exchange: &Arc<Exchange>,
        timeout: Option<Duration>,
        limits: &ChildLimits,
    ) -> bool {
        let has_room = self.has_room(message.len(), limits);
        if has_room {
            self.append(message, id, Arc::clone(exchange), timeout, None);
        }
        has_room
    }

    /// Queues calls that a child has crashed over, before all messages that no child has had; `timeout` gives the
    /// time-out of a tool. Returns the calls that do not fit.
    pub(super) fn push_retries(
        &mut self,
        calls: Vec<Orphan>,
        timeout: impl Fn(&str) -> Duration,
        limits: &ChildLimits,
    ) -> Vec<Orphan> {
        let mut refused = Vec::new();
        for call in calls {
            if self.has_room(call.kept.message.len(), limits) {
                let Orphan { kept, id, exchange, failure } = call;
                let timeout = Some(timeout(&kept.tool));
                self.append(kept.message, Some(id), exchange, timeout, Some((kept.tool, failure)));
            } else {
                refused.push(call);
            }
        }
        refused
    }

    /// Whether a message of `len` bytes fits into the bounds. An empty queue has room for any message.
    fn has_room(&self, len: usize, limits: &ChildLimits) -> bool {
        Budget { messages: limits.max_in_flight, bytes: limits.stdin_queue }.admits(self.usage, len)
    }

    /// Queues a message behind all others of its kind.
    fn append(
        &mut self,
        message: Bytes,
        id: Option<RawId>,
        exchange: Arc<Exchange>,
        timeout: Option<Duration>,
        retry: Option<(Arc<str>, Failure)>,
    ) {
        self.next += 1;
        let position = Position { is_first_try: retry.is_none(), number: self.next };
        let (since, refused_since, was_tried) = (Instant::now(), None, false);
        self.put_back(Pending { position, message, id, exchange, refused_since, timeout, since, was_tried, retry });
    }

    /// The position of the first message, which stays queued; its tool if the message is a retry; and its size in
    /// bytes. If the queue is empty, the token is consumed, and `None` is returned.
    pub(super) fn first(&mut self, token: DrainToken) -> Option<(DrainToken, Position, Option<Arc<str>>, usize)> {
        let first = self.queue.first_key_value();
        self.is_being_drained = first.is_some();
        first.map(|(position, pending)| {
            let tool = pending.retry.as_ref().map(|(tool, _)| Arc::clone(tool));
            (token, *position, tool, pending.message.len())
        })
    }

    /// Removes the message at a position; `None` if it has been cancelled or has failed.
    pub(super) fn take(&mut self, position: Position) -> Option<Pending> {
        let pending = self.queue.remove(&position)?;
        self.usage.remove(pending.message.len());
        if let Some(id) = &pending.id
            && let Some(positions) = self.by_id.get_mut(id)
        {
            positions.remove(&position);
            if positions.is_empty() {
                self.by_id.remove(id);
            }
        }
        Some(pending)
    }

    /// Returns a message that was taken, but not accepted by a child, to its old position.
    pub(super) fn put_back(&mut self, pending: Pending) {
        self.usage.add(pending.message.len());
        if let Some(id) = &pending.id {
            self.by_id.entry(id.clone()).or_default().insert(pending.position);
        }
        self.queue.insert(pending.position, pending);
    }

    /// Removes the request with an id for its cancellation: the latest, if a client uses one id for several requests.
    pub(super) fn cancel(&mut self, id: &str) -> Option<Pending> {
        let position = *self.by_id.get(&RawId::new(id)?)?.last()?;
        self.take(position)
    }

    /// Removes the messages that have been queued for as long as their time-outs allow.
    pub(super) fn take_overdue(&mut self) -> Vec<Pending> {
        let is_overdue = |pending: &Pending| pending.timeout.is_some_and(|timeout| pending.since.elapsed() >= timeout);
        let overdue = self.queue.values().filter(|pending| is_overdue(pending)).map(|pending| pending.position);
        let overdue: Vec<_> = overdue.collect();
        overdue.into_iter().filter_map(|position| self.take(position)).collect()
    }

    /// Takes the drain token back, or declares the token lost with its task. Removes and returns all messages.
    pub(super) fn abandon(&mut self) -> Vec<Pending> {
        self.is_being_drained = false;
        self.take_all()
    }

    /// Removes and returns all messages. A drain token stays valid.
    pub(super) fn take_all(&mut self) -> Vec<Pending> {
        self.usage = Usage::default();
        self.by_id.clear();
        std::mem::take(&mut self.queue).into_values().collect()
    }
}
