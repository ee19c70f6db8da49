//! A link: the way between one client's conversation and the children of one server, whichever of them is current.
//!
//! Invariant: the exit of a child is not the end of the link. Another child replaces it and hears the same handshake;
//! only calls in flight fail.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::acquire::outcome;
use super::client::Client;
use super::context::{Context, Target};
use super::dispatch::call_timeout;
use super::handshake::{Done, Handshake, MAX_INITIALIZE, Unanswered, announced_lists};
use super::queue::{DrainToken, MAX_ID};
use super::slot::{Outcome, Slot};
use super::state::State;
use crate::jsonrpc::{Code, Envelope, Kind, RawId, empty_response, error_response, parse, under_id};
use crate::mcp::{self, Cancels, method, protocol_version};
use crate::stream::Exchange;
use crate::telemetry::MemoryUse;
use crate::worker::{DropGuard, Failure, Lease, Negotiated, Refused};

/// The way between one client's conversation and one server. A conversation may have several links.
pub struct Link {
    /// The target, the client and the state, which the jobs of the link work on.
    pub(super) context: Context,
    /// The link itself, for the tasks that it spawns.
    pub(super) this: Weak<Self>,
    /// Shared by those who hand a message in, until a child or the queue has it. A link that is unused ends only while
    /// nobody does.
    receiving: RwLock<()>,
}

impl Link {
    /// A link without a child. The client's `initialize` starts the first one. What a child sends besides answers goes
    /// to `client`.
    pub fn new(target: Target, client: Arc<dyn Client>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            context: Context::new(target, client),
            this: this.clone(),
            receiving: RwLock::default(),
        })
    }

    /// What the link was made for.
    pub fn target(&self) -> &Target {
        &self.context.target
    }

    /// The negotiated protocol version; `None` before `initialize` has succeeded.
    pub fn version(&self) -> Option<String> {
        self.context.state.lock().handshake.done().map(|done| done.version.clone())
    }

    /// When the client last used the link: sent a message, or got an answer. `None` while something is in flight or
    /// queued, and once the link has ended.
    pub fn last_use(&self) -> Option<Instant> {
        let mut state = self.context.state.lock();
        if self.context.ended.is_cancelled() { None } else { state.last_use() }
    }

    /// Whether calls are in flight or queued, or tasks are running. The result of a task that the client has not
    /// fetched does not count: in a drain no client can fetch it any more.
    pub fn is_busy(&self) -> bool {
        self.context.state.lock().is_busy(Lease::is_done)
    }

    /// Takes one message of the client. The answer to a request, errors included, goes to `exchange`. The message is
    /// borrowed: what the link keeps is a copy, and never a small part of a large body.
    ///
    /// # Errors
    /// The server takes no more messages for now, or the link has ended. Nothing has been answered.
    pub fn receive(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Result<(), Refused> {
        let _receiving = self.receiving.read();
        if envelope.kind == Kind::Request && envelope.method.as_deref() == Some(method::INITIALIZE) {
            self.receive_initialize(message, envelope, exchange);
            return Ok(());
        }
        if let Some(taken) = self.follow_up(message, envelope, exchange) {
            return taken;
        }
        let cancels = Cancels::read(envelope);
        if cancels == Cancels::Nothing || cancels.request().is_some_and(|id| id.len() > MAX_ID) {
            return Ok(());
        }
        let live = {
            let mut state = self.context.state.lock();
            state.touch();
            if let Cancels::Request(id) = cancels
                && let Some(cancelled) = state.queue.cancel(id)
            {
                drop(state);
                cancelled.exchange.settle();
                return Ok(());
            }
            if state.handshake.is_none() {
                drop(state);
                self.answer_before_initialize(envelope, exchange);
                return Ok(());
            }
            // No message overtakes the queued ones. Only responses do: they are for a child that waits for them.
            state.slot.live().filter(|_| envelope.kind == Kind::Response || !state.queue.is_being_drained)
        };
        match live.map(|lease| self.context.send(&lease, message, envelope, exchange)) {
            // The child is about to exit, or there is none: the message is queued for another.
            Some(Err(Refused::Ended | Refused::Retired)) | None => self.enqueue(message, envelope, exchange),
            Some(sent) => sent,
        }
    }

    /// Ends the link: leaves all children, and answers everything in flight or queued with a failure. Idempotent.
    pub fn end(&self) {
        self.end_if(|_| true);
    }

    /// Ends the link if nothing is in flight, queued, or just being handed in. Returns whether this call has ended the
    /// link.
    pub fn end_if_unused(&self) -> bool {
        // A message that a child has not taken yet is in no table: the lock keeps the link for that message.
        let Some(_nothing_comes) = self.receiving.try_write() else { return false };
        self.end_if(|state| !self.context.ended.is_cancelled() && !state.is_busy(Lease::is_idle))
    }

    /// Ends the link if `condition` allows, which is asked under the lock: a message that comes later finds the end.
    fn end_if(&self, condition: impl FnOnce(&State) -> bool) -> bool {
        let leases = {
            let mut state = self.context.state.lock();
            if !condition(&state) {
                return false;
            }
            // Under one lock: others see the end only after every request has been answered.
            self.context.ended.cancel();
            state.draining.iter().rev().chain(state.slot.leased()).for_each(|lease| lease.leave());
            self.context.fail(&state.queue.take_all(), &self.context.stopped());
            if let Some(Unanswered { id, exchange }) = state.handshake.take_unanswered() {
                self.context.answer(&exchange, self.context.stopped().response(&id));
            }
            (std::mem::take(&mut state.slot), std::mem::take(&mut state.draining))
        };
        drop(leases);
        true
    }

    /// Spawns a job of this link on its task tracker.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(&self, job: impl FnOnce(Arc<Self>) -> F) {
        if let Some(this) = self.this.upgrade() {
            self.context.target.tasks.spawn(job(this));
        }
    }

    /// Answers a message that comes before `initialize`: a ping succeeds, any other request fails (2025-11-25,
    /// "Lifecycle").
    fn answer_before_initialize(&self, envelope: &Envelope<'_>, exchange: &Exchange) {
        let Some(id) = envelope.raw_id().filter(|_| envelope.kind == Kind::Request) else { return };
        let response = match envelope.method.as_deref() {
            Some(method::PING) => empty_response(&id),
            _ => error_response(Some(&id), Code::InvalidRequest, "send initialize first"),
        };
        self.context.answer(exchange, response);
    }

    /// Takes the client's `initialize`, and starts the first child.
    fn receive_initialize(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) {
        let Some(id) = envelope.raw_id() else { return };
        let refuse = |code, text: &str| self.context.answer(exchange, error_response(Some(&id), code, text));
        if let Some(ambiguity) = mcp::ambiguity(envelope) {
            return refuse(ambiguity.code(), &ambiguity.to_string());
        }
        if message.len() > MAX_INITIALIZE {
            return refuse(Code::InvalidRequest, &format!("initialize is larger than {MAX_INITIALIZE} bytes"));
        }
        let message = match self.context.target.account.copy(message) {
            Ok(message) => message,
            Err(exhausted) => {
                self.context.target.deployment.metrics.memory_refused(MemoryUse::Session);
                return self.context.answer(exchange, Failure::refused(exhausted.into()).response(&id));
            }
        };
        let (starting, token) = {
            let mut state = self.context.state.lock();
            state.touch();
            if self.context.ended.is_cancelled() {
                return self.context.answer(exchange, self.context.stopped().response(&id));
            }
            if !state.handshake.is_none() {
                return refuse(Code::InvalidRequest, "the session is initialized already; open another one");
            }
            let unanswered = Unanswered { id: id.clone(), exchange: Arc::clone(exchange) };
            state.handshake = Handshake::Initializing(unanswered);
            // Under the lock: messages right behind `initialize` are queued for this child, until `initialize` is
            // answered.
            let starting = self.start(message.clone(), Vec::new());
            state.slot = Slot::Starting(starting.clone());
            (starting, state.queue.reserve())
        };
        self.spawn(async move |this| {
            let guard = DropGuard::new(|| this.abandon());
            let started = this.context.failing_overdue(outcome(&this.context, starting)).await;
            let token = this.finish_initialize(message, &id, started, token);
            guard.disarm();
            // The child may have exited before the handshake was complete, when its exit had no consequence.
            this.restart_if_missed();
            if let Some(token) = token {
                this.drain_queue(token).await;
            }
        });
    }

    /// Answers the client's `initialize` with the outcome of the first start. If the start failed, all queued messages
    /// fail too. Returns the drain token after a success; after a failure the token is used up.
    fn finish_initialize(
        &self,
        message: Bytes,
        id: &RawId,
        started: Outcome,
        token: Option<DrainToken>,
    ) -> Option<DrainToken> {
        // Before the lock is taken: this takes as long as the answer is large.
        let done = started.as_ref().map_err(Failure::clone).and_then(|(_, answer)| {
            let refused = || Failure::refused_by_server(&self.context.server().name, answer);
            let version = protocol_version(answer).ok_or_else(refused)?;
            let lists = announced_lists(answer).unwrap_or_default();
            Ok(Done { initialize: message, version, lists, negotiated: Negotiated::default() })
        });
        let is_error = |answer: &[u8]| parse(answer).is_ok_and(|answer| answer.is_error);
        let response = match (&started, &done) {
            // With a result without a version, the client would believe that it has a session.
            (Ok((_, answer)), Err(failure)) if !is_error(answer) => failure.response(id),
            (Ok((_, answer)), _) => (self.context.target.account.freeze(under_id(answer, id)))
                .unwrap_or_else(|_| Failure::no_memory(&self.context.server().name, answer.len()).response(id)),
            (Err(failure), _) => failure.response(id),
        };
        let mut state = self.context.state.lock();
        // Under the lock: the end of the link finds `initialize` unanswered, or its answer delivered.
        let failure = match (state.handshake.take_unanswered(), done) {
            (Some(unanswered), done) => {
                self.context.answer(&unanswered.exchange, response);
                match done {
                    Ok(done) => {
                        state.handshake = Handshake::Done(Box::new(done));
                        return token;
                    }
                    Err(failure) => failure,
                }
            }
            // The link has ended, and has answered `initialize`.
            (None, _) => self.context.stopped(),
        };
        // The client may try again, with another child.
        state.slot = Slot::Empty;
        let queued = if token.is_some() { state.queue.abandon() } else { state.queue.take_all() };
        self.context.fail(&queued, &failure);
        None
    }

    /// Fails `initialize`, if it is unanswered, and the queue: the task that had to serve them has panicked.
    pub(super) fn abandon(&self) {
        let internal = || Failure::internal(&self.context.server().name);
        let (queued, child) = {
            let mut state = self.context.state.lock();
            // The client may try again, with another child.
            let child = state.handshake.take_unanswered().map(|Unanswered { id, exchange }| {
                self.context.answer(&exchange, internal().response(&id));
                std::mem::take(&mut state.slot)
            });
            (state.queue.abandon(), child)
        };
        drop(child);
        self.context.fail(&queued, &internal());
    }

    /// Sends a message about something in flight to the child concerned, which may be draining or still hearing the
    /// replay. `None` if no such child is concerned: then the message goes the usual way.
    fn follow_up(
        &self,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Option<Result<(), Refused>> {
        if envelope.kind == Kind::Request {
            return self.follow_up_on_task(message, envelope, exchange);
        }
        let leases = self.context.state.lock().leases_in_flight();
        // Of several calls with one id, the latest is meant.
        let taken = leases.iter().find_map(|lease| lease.follow_up(envelope))?;
        // A child that has exited needs no word about what was in flight on it.
        Some(taken.or_else(|refused| if refused.is_busy() { Err(refused) } else { Ok(()) }))
    }

    /// Sends a request about a task to the child that runs the task, although that child takes no new calls.
    fn follow_up_on_task(
        &self,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Option<Result<(), Refused>> {
        if !envelope.method.as_deref().is_some_and(|asked| asked.starts_with(method::TASKS_PREFIX)) {
            return None;
        }
        let retired = {
            let mut state = self.context.state.lock();
            state.touch();
            state.retired_leases()
        };
        // Servers may number their tasks, each child from the same number on: the latest child is meant.
        let lease = retired.iter().find(|lease| lease.takes_about_task(envelope))?;
        match self.context.send(lease, message, envelope, exchange) {
            // The task ended just now: another child may know of it.
            Err(Refused::Ended | Refused::Retired) => None,
            sent => Some(sent),
        }
    }

    /// Queues a message for a child that is still to start.
    fn enqueue(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Result<(), Refused> {
        let server = self.context.server();
        let (id, timeout) = match envelope.kind {
            // The child that asked has exited.
            Kind::Response => return Ok(()),
            Kind::Notification => (None, None),
            Kind::Request => (envelope.raw_id(), Some(call_timeout(server, envelope))),
        };
        if let Some(id) = id.as_ref().filter(|id| id.as_str().len() > MAX_ID) {
            let text = format!("the id is longer than {MAX_ID} bytes");
            self.context.answer(exchange, error_response(Some(id), Code::InvalidRequest, &text));
            return Ok(());
        }
        // Before the lock is taken: this takes as long as the message is large.
        let message = self.context.target.account.copy(message)?;
        let taken = {
            let mut state = self.context.state.lock();
            // The queue of a link that has ended is served no more.
            if self.context.ended.is_cancelled() {
                return Err(Refused::SessionEnded);
            }
            state.queue.push(message, id, exchange, timeout, &server.limits)
        };
        self.begin_drain();
        if taken { Ok(()) } else { Err(Refused::Busy) }
    }
}
