//! One session: it takes the client's messages to its child, and the child's to the client's streams.
//!
//! Invariant: a child's death is not the session's death. Another child takes its place and hears the same handshake
//! (`child`); only calls in flight fail.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::id::SessionId;
use super::link::acquire::Slot;
use super::link::draining::Predecessors;
use super::link::handshake::{Handshake, INITIALIZE};
use super::link::queue::{Cancels, Waiting};
use super::streams::{Streams, Transport};
use crate::auth::Principal;
use crate::config::Server;
use crate::jsonrpc::{Code, Envelope, Kind, RawId, empty_response, error_response};
use crate::pool::Pool;
use crate::stream::{Budget, Cursor, Exchange, Expiry, Item, Outbox};
use crate::telemetry::{DropReason, ServerMetrics};
use crate::worker::{DropGuard, Failure, InFlight, Lease, Orphan, Peer, Refused, Route, Unsolicited, deliver};

#[derive(Default)]
pub(super) struct State {
    pub(super) slot: Slot,
    pub(super) before: Predecessors,
    pub(super) handshake: Handshake,
    pub(super) streams: Streams,
    pub(super) waiting: Waiting,
    /// The child that is being told what the one before it was told.
    pub(super) told: Weak<Lease>,
    /// Whether somebody sees to it that there is a child, though no message waits for one.
    pub(super) is_reviving: bool,
    /// Children in a row that were of no use, or did not start, the one in the slot left out.
    pub(super) in_vain: usize,
    pub(super) last_used: Option<Instant>,
    /// Whether the client's `initialize` has not been answered yet.
    is_opening: bool,
}

impl State {
    /// Whether something is in flight or waits, or a child is on its way; of a child, `is_idle` says it.
    fn is_busy(&self, is_idle: fn(&Lease) -> bool) -> bool {
        // A child that nobody has asked for is no use of the session: that would keep it for ever.
        let is_nobodys = self.is_reviving && matches!(self.slot, Slot::Starting(_));
        (self.slot.is_busy(is_idle) && !is_nobodys) || self.before.busy(is_idle) > 0 || self.waiting.is_being_sent()
    }
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// It is on its way; a request's answer comes to its exchange.
    Accepted,
    /// The server takes no more for now.
    Refused(Refused),
}

/// What a session is made with, besides who and what it is for.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) pool: Arc<Pool>,
    pub(super) metrics: ServerMetrics,
    pub(super) stream_limits: Budget,
    pub(super) tasks: TaskTracker,
}

/// A client's conversation with a server.
pub struct Session {
    pub(super) id: SessionId,
    pub(super) principal: Principal,
    pub(super) server: Arc<Server>,
    transport: Transport,
    pub(super) surroundings: Surroundings,
    pub(super) state: Mutex<State>,
    pub(super) ended: CancellationToken,
    /// Notified when it is off a child that was replaced.
    pub(super) let_go: Notify,
    pub(super) this: Weak<Self>,
    expiry: Expiry,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        principal: Principal,
        server: Arc<Server>,
        transport: Transport,
        surroundings: Surroundings,
    ) -> Arc<Self> {
        let state = Mutex::new(State { last_used: Some(Instant::now()), ..State::default() });
        let ended = CancellationToken::new();
        Arc::new_cyclic(|this| Self {
            id,
            principal,
            server,
            transport,
            surroundings,
            state,
            ended,
            let_go: Notify::new(),
            expiry: Expiry::default(),
            this: this.clone(),
        })
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Until when the newest credential holds that its principal has shown for it: its streams end then.
    pub fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    /// The server that it talks to.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// How the client is connected.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The protocol version that was negotiated, once it has been.
    pub fn version(&self) -> Option<String> {
        match &self.state.lock().handshake {
            Handshake::Done(done) => Some(done.version.clone()),
            Handshake::None | Handshake::Initializing => None,
        }
    }

    /// Opens the session's stream, in the place of an earlier one.
    pub fn open_stream(&self) -> Cursor {
        let (outbox, cursor) = Outbox::new(self.surroundings.stream_limits);
        let mut state = self.state.lock();
        state.last_used = Some(Instant::now());
        if self.ended.is_cancelled() {
            outbox.finish();
        }
        state.streams.open(outbox);
        cursor
    }

    /// The open stream, as the exchange that takes every answer (HTTP+SSE).
    pub fn stream(&self) -> Option<Arc<Exchange>> {
        self.state.lock().streams.current().cloned()
    }

    /// Takes one message of the client. Answers, errors among them, go to `exchange`. The message is only lent: what is kept
    /// of it is a copy, and never a small part of a large body.
    pub fn receive(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Received {
        let method = envelope.method.as_deref().unwrap_or_default();
        if envelope.kind == Kind::Request && method == "initialize" {
            return self.receive_initialize(message, envelope, exchange);
        }
        if let Some(received) = self.receive_follow_up(message, envelope, exchange) {
            return received;
        }
        let cancels = Cancels::read(envelope);
        if cancels == Cancels::Nothing {
            return Received::Accepted;
        }
        let live = {
            let mut state = self.state.lock();
            state.last_used = Some(Instant::now());
            if let Cancels::Request(id) = &cancels
                && let Some(cancelled) = state.waiting.cancel(id)
            {
                drop(state);
                cancelled.exchange.settle();
                return Received::Accepted;
            }
            if matches!(state.handshake, Handshake::None) {
                drop(state);
                return self.before_initialize(envelope, exchange);
            }
            // Nothing overtakes what waits, but for answers, which are for a child that is there.
            state.slot.live().filter(|_| envelope.kind == Kind::Response || !state.waiting.is_being_sent())
        };
        match live.map(|lease| self.send(&lease, message, envelope, exchange)) {
            Some(Ok(())) => Received::Accepted,
            Some(Err(refused @ (Refused::Busy | Refused::Share))) => Received::Refused(refused),
            // It is on its way out, or there is none: the message waits for another.
            Some(Err(Refused::Ended | Refused::Retired)) | None => self.receive_later(message, envelope, exchange),
        }
    }

    /// Refuses a message that the server does not take for now: a request has an answer, anything else is dropped and
    /// counted.
    pub fn refuse(&self, envelope: &Envelope<'_>, reason: Refused, exchange: &Exchange) {
        match envelope.raw_id().filter(|_| envelope.kind == Kind::Request) {
            Some(id) => self.answer(exchange, Failure::refused(reason).response(&id)),
            None => {
                self.surroundings.metrics.dropped(DropReason::Refused);
                tracing::debug!(server = %self.server.name, session = %self.id.public(), %reason, "a message was not taken");
            }
        }
    }

    /// Answers with something of the gateway's own.
    pub fn answer(&self, exchange: &Exchange, message: Bytes) {
        deliver(&self.surroundings.metrics, exchange, message);
    }

    /// Before `initialize` there is no child to ask: only a ping is answered (2025-11-25, "Lifecycle").
    fn before_initialize(&self, envelope: &Envelope<'_>, exchange: &Exchange) -> Received {
        if let (Kind::Request, Some(id)) = (envelope.kind, envelope.raw_id()) {
            let response = match envelope.method.as_deref() {
                Some("ping") => empty_response(&id),
                _ => error_response(Some(&id), Code::InvalidRequest, "send initialize first"),
            };
            self.answer(exchange, response);
        }
        Received::Accepted
    }

    fn receive_initialize(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Received {
        let (Some(id), Some(this)) = (envelope.raw_id(), self.this.upgrade()) else { return Received::Accepted };
        if let Some(ambiguity) = envelope.ambiguity() {
            self.answer(exchange, error_response(Some(&id), ambiguity.code(), &ambiguity.to_string()));
            return Received::Accepted;
        }
        if message.len() > INITIALIZE {
            let text = format!("initialize is larger than {INITIALIZE} bytes");
            self.answer(exchange, error_response(Some(&id), Code::InvalidRequest, &text));
            return Received::Accepted;
        }
        let message = Bytes::copy_from_slice(message);
        let (starting, turn) = {
            let mut state = self.state.lock();
            state.last_used = Some(Instant::now());
            if !matches!(state.handshake, Handshake::None) {
                let text = "the session is initialized already; open another one";
                self.answer(exchange, error_response(Some(&id), Code::InvalidRequest, text));
                return Received::Accepted;
            }
            state.handshake = Handshake::Initializing;
            state.is_opening = true;
            // At once: what comes right behind it waits for this child, and until this has been answered.
            let starting = self.start(message.clone(), Vec::new());
            state.slot = Slot::Starting(starting.clone());
            (starting, state.waiting.hold())
        };
        let exchange = Arc::clone(exchange);
        self.surroundings.tasks.spawn(async move {
            let guard = DropGuard::new(|| this.abandon_initialize(&id, &exchange));
            let (response, turn) = this.meanwhile(this.initialize(&message, &id, starting, turn)).await;
            this.answer(&exchange, response);
            this.initialize_is_over();
            guard.disarm();
            // The child may have ended before this was known to be a session that misses it.
            this.see_to_child();
            if let Some(turn) = turn {
                this.send_waiting(turn).await;
            }
        });
        Received::Accepted
    }

    /// The task that was to answer `initialize` has failed.
    fn abandon_initialize(&self, id: &RawId, exchange: &Exchange) {
        self.answer(exchange, Failure::internal(&self.server.name).response(id));
        let child = {
            let mut state = self.state.lock();
            let is_open = matches!(state.handshake, Handshake::Initializing);
            is_open.then(|| {
                // The client may try again, with another child.
                state.handshake = Handshake::None;
                std::mem::take(&mut state.slot)
            })
        };
        drop(child);
        self.initialize_is_over();
        self.abandon_waiting();
    }

    /// The client's `initialize` has been answered. The streams of a session that has ended were open for that only.
    fn initialize_is_over(&self) {
        let mut state = self.state.lock();
        state.is_opening = false;
        if self.ended.is_cancelled() {
            state.streams.close();
        }
    }

    /// For how long nobody has used it: no stream is open, nothing is in flight. `None` while it is in use.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        if state.is_busy(Lease::is_idle) || state.streams.current().is_some() {
            state.last_used = Some(Instant::now());
            return None;
        }
        state.last_used.map(|since| since.elapsed())
    }

    /// Ends the session: its holds on children, its stream. What is in flight or waits is told so first. Idempotent.
    pub(super) fn end(&self) {
        let holds = {
            let mut state = self.state.lock();
            // In one go: whoever learns of the end gets at the state only when all have been told.
            self.ended.cancel();
            state.before.latest_first().for_each(|lease| lease.leave());
            if let Slot::Live(lease) = &state.slot {
                lease.leave();
            }
            let waiting = state.waiting.take_all();
            waiting.iter().for_each(|parked| self.fail(parked, Failure::stopped(&self.server.name)));
            // The answer to an `initialize` that is in flight comes in a moment, and closes the stream then.
            if !state.is_opening {
                state.streams.close();
            }
            (std::mem::take(&mut state.slot), std::mem::take(&mut state.before))
        };
        drop(holds);
    }

    /// Whether calls are in flight, or tasks go on. A result that waits to be fetched is none of that: in a drain nobody can
    /// fetch it any more.
    pub(super) fn is_busy(&self) -> bool {
        self.state.lock().is_busy(Lease::is_done)
    }
}

impl Peer for Session {
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route {
        self.state.lock().streams.route(self.transport, item, kind, in_flight)
    }

    fn forget(&self, number: u64) -> bool {
        self.state.lock().streams.forget(number)
    }

    fn resend(&self, calls: Vec<Orphan>) -> Vec<Orphan> {
        self.park_again(calls)
    }

    fn let_go(&self) {
        self.forget_over();
    }

    fn exited(&self) {
        self.child_exited();
    }
}
