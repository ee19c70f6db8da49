//! A session's hold on a worker: what it sends with. Dropped, the session is off the child: its calls are cancelled,
//! and a child that was its alone is stopped.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::calls::{
    Ask, Draft, Kept, LeaseId, Multiplexer, Notified, Outgoing, Refused, Reported, Standing, answer_frame,
    cancellation_frame,
};
use super::delivery::deliver;
use super::error::Failure;
use super::handle::Worker;
use super::lease_holder::LeaseHolder;
use super::phase::Due;
use super::stdin::Queued;
use crate::jsonrpc::{Envelope, Kind, RawId, notification_frame, parse};
use crate::mcp::{ambiguity, method};
use crate::stream::{Budget, Cursor, Exchange, Outbox};
use crate::telemetry::{Direction, DropReason};

/// What opening a child needs to queue its one answer.
const OPENING: Budget = Budget { messages: 4, bytes: 1024 * 1024 };

/// A session's hold on a worker.
pub struct Lease {
    worker: Worker,
    peer: LeaseId,
    /// Whether the child is this session's alone, and goes with it.
    exclusive: bool,
    /// Dropped with the lease: for example the capacity that an exclusive child occupies, which its successor inherits.
    held: Option<Arc<dyn Any + Send + Sync>>,
    /// What of it waits for the stdin of a child that others use as well.
    queued: Option<Queued>,
    /// What the child is still to grant the session, as the one before it had.
    owed: Mutex<BTreeSet<Standing>>,
}

/// A request of the gateway's own that has been put to a child.
#[derive(Debug)]
pub(super) struct Answering {
    cursor: Cursor,
    id: Option<RawId>,
}

impl Lease {
    /// Puts a session on a worker.
    pub fn new(worker: Worker, holder: Weak<dyn LeaseHolder>, exclusive: bool) -> Self {
        let peer = worker.attach(holder);
        let queued = (!worker.shared().is_exclusive()).then(Queued::default);
        Self { worker, peer, exclusive, held: None, queued, owed: Mutex::default() }
    }

    pub(super) fn peer(&self) -> LeaseId {
        self.peer
    }

    /// The child is another session's, or nobody's: the one that this was for has never had an answer of it.
    pub fn hand_to(&self, holder: Weak<dyn LeaseHolder>) {
        self.worker.readdress(self.peer, holder);
    }

    /// Keeps a value until the lease is dropped.
    #[must_use]
    pub fn holding(mut self, held: Arc<dyn Any + Send + Sync>) -> Self {
        self.held = Some(held);
        self
    }

    /// The value that the lease keeps.
    pub fn held(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.held.as_ref()
    }

    /// Whether a successor of the worker inherits what the lease holds: an exclusive worker takes no calls any more.
    pub fn leaves_capacity(&self) -> bool {
        self.held.is_some() && !self.worker.takes_calls()
    }

    /// The worker.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Sends a request; its answer goes to the exchange, whatever happens. With what is `kept`, the session is asked to
    /// send it again after a crash.
    pub fn call(&self, ask: &Ask<'_>, kept: Option<Kept>) -> Result<(), Refused> {
        let shared = self.worker.shared();
        let draft = Draft::new(ask, self.peer, kept, Instant::now()).ok_or(Refused::Ended)?;
        let mut multiplexer = shared.multiplexer.lock();
        let is_retired = shared.is_retired();
        if is_retired && !multiplexer.is_about_task_here(self.peer, ask.envelope) {
            return Err(Refused::Retired);
        }
        let is_heard = self.put(&mut multiplexer, draft)?;
        if ask.envelope.method.as_deref().is_some_and(Standing::is_made_by) {
            Standing::overrule(&mut self.owed.lock(), ask.envelope);
        }
        if is_heard {
            multiplexer.total += 1;
            if !is_retired && shared.server.pool.max_requests.is_some_and(|most| multiplexer.total >= most as u64) {
                shared.retire(&multiplexer, Due::MaxRequests);
            }
        }
        Ok(())
    }

    /// Puts a request to the child. Says whether the child hears of it.
    fn put(&self, multiplexer: &mut Multiplexer, draft: Draft<'_>) -> Result<bool, Refused> {
        let (shared, ask) = (self.worker.shared(), draft.ask);
        let outgoing = multiplexer.put(draft)?;
        if multiplexer.timer.take_moved() {
            shared.deadline_moved.notify_one();
        }
        match outgoing {
            Outgoing::Forward(number, frame) => {
                shared.metrics.carried(Direction::ToServer, frame.len());
                let queued = self.queued.as_ref().filter(|_| !ask.is_own);
                shared.stdin.push_of(queued, frame).inspect_err(|_| multiplexer.forget(number))?;
                return Ok(true);
            }
            Outgoing::Local(answer) => deliver(&shared.metrics, ask.exchange, answer),
            Outgoing::Wait => {}
        }
        Ok(false)
    }

    /// Sends a request that a child before this one crashed over. That happens to it once.
    pub fn call_again(&self, ask: &Ask<'_>) -> Result<(), Refused> {
        self.call(ask, None)?;
        self.worker.shared().metrics.resent.inc();
        Ok(())
    }

    /// Sends a notification of the client.
    pub fn notify(&self, envelope: &Envelope<'_>) -> Result<(), Refused> {
        if let Some(taken) = self.follow_up(envelope) {
            return taken;
        }
        let shared = self.worker.shared();
        match envelope.method.as_deref().unwrap_or_default() {
            // What is not in flight cannot be cancelled, and that is no error: the answer may just have left.
            method::CANCELLED => Ok(()),
            method::INITIALIZED if ambiguity(envelope).is_none() => {
                shared.say_initialized(notification_frame(envelope, &mut []))
            }
            _ => {
                let notified = shared.multiplexer.lock().notified_by_client(self.peer, envelope);
                match notified.written(envelope) {
                    Notified::Forward(frame) => return self.push(frame),
                    Notified::Drop(reason) => shared.metrics.dropped(reason),
                    Notified::Ignore => {}
                }
                Ok(())
            }
        }
    }

    /// Sends the client's answer to a request of the server. An answer to nothing is dropped and counted.
    pub fn answer(&self, envelope: &Envelope<'_>) -> Result<(), Refused> {
        self.follow_up(envelope).unwrap_or_else(|| {
            self.worker.shared().metrics.dropped(DropReason::UnknownResponse);
            Ok(())
        })
    }

    /// Sends what is about something in flight on this child: a cancellation, the client's answer to a request of the
    /// server, progress with one. `None` if it is not.
    pub fn follow_up(&self, envelope: &Envelope<'_>) -> Option<Result<(), Refused>> {
        let pushed = match (envelope.kind, envelope.method.as_deref()) {
            (Kind::Response, _) => self.answer_child(envelope)?,
            (Kind::Notification, Some(method::CANCELLED)) => self.cancel(envelope)?,
            (Kind::Notification, Some(method::PROGRESS)) => self.progress(envelope)?,
            _ => return None,
        };
        self.worker.shared().something_is_over();
        Some(pushed)
    }

    /// Sends the client's answer to a request of the server; `None` if the server waits for no such answer.
    fn answer_child(&self, envelope: &Envelope<'_>) -> Option<Result<(), Refused>> {
        let shared = self.worker.shared();
        let (number, id) = shared.multiplexer.lock().server_requests.answered_with(self.peer, envelope)?;
        let (frame, reported) = (answer_frame(&id, envelope), Reported::by(envelope));
        let mut multiplexer = shared.multiplexer.lock();
        // Meanwhile the request may have run out of time, or been answered by another message.
        if !multiplexer.server_requests.is_open(self.peer, number) {
            return None;
        }
        // Where there is no room the child still waits for the answer, and the client may send it again.
        Some(self.push(frame).inspect(|()| {
            multiplexer.server_requests.answered(number, &reported);
            shared.health.lock().worked(Instant::now());
        }))
    }

    /// Sends the client's progress with a request of the server; `None` if the server waits for no such progress.
    fn progress(&self, envelope: &Envelope<'_>) -> Option<Result<(), Refused>> {
        let shared = self.worker.shared();
        let notified = shared.multiplexer.lock().notified_by_client(self.peer, envelope);
        let Notified::Forward(frame) = notified.written(envelope) else { return None };
        let multiplexer = shared.multiplexer.lock();
        // Meanwhile the request may be over, and its token may be that of another request.
        let is_open = matches!(multiplexer.notified_by_client(self.peer, envelope), Notified::Forward(_));
        is_open.then(|| self.push(frame))
    }

    /// Cancels a call for its client; `None` if no such call is in flight.
    fn cancel(&self, envelope: &Envelope<'_>) -> Option<Result<(), Refused>> {
        let shared = self.worker.shared();
        let number = shared.multiplexer.lock().cancelled_by_client(self.peer, envelope)?;
        let frame = cancellation_frame(number, envelope);
        let mut multiplexer = shared.multiplexer.lock();
        // Meanwhile the call may have been answered.
        if !multiplexer.has_call(self.peer, number) {
            return None;
        }
        Some(match self.push(frame) {
            // The call goes on, and the client may cancel it again.
            Err(refused) if refused.is_busy() => Err(refused),
            // A child that has ended need not hear of it.
            Ok(()) | Err(_) => {
                let now = Instant::now();
                multiplexer.cancel(number, now).into_iter().for_each(|call| call.exchange.settle());
                shared.health.lock().worked(now);
                Ok(())
            }
        })
    }

    fn push(&self, frame: Bytes) -> Result<(), Refused> {
        let shared = self.worker.shared();
        shared.metrics.carried(Direction::ToServer, frame.len());
        shared.stdin.push_of(self.queued.as_ref(), frame)
    }

    /// Puts `initialize` to a child that has not heard one, and waits for the answer, at most `limits.start_timeout`.
    ///
    /// # Errors
    /// The child does not take the request, or ends before it answers.
    pub async fn open(&self, message: &[u8]) -> Result<Bytes, Failure> {
        self.ask(message, self.worker.shared().server.limits.start_timeout).await
    }

    /// Puts a request of the gateway's own, and waits for its answer.
    ///
    /// # Errors
    /// The child does not take it, or goes before it answers.
    pub async fn ask(&self, message: &[u8], timeout: std::time::Duration) -> Result<Bytes, Failure> {
        match self.put_own(Bytes::copy_from_slice(message), timeout, || true) {
            Ok(Some(answering)) => self.answer_to(answering).await,
            Ok(None) => Err(Failure::refused(Refused::Ended)),
            Err(refused) => Err(self.failed(refused).await),
        }
    }

    /// Puts a request of the gateway's own, if it is still wanted when nothing of the session can come in between; `None` if
    /// it is not.
    pub(super) fn put_own(
        &self,
        message: Bytes,
        timeout: std::time::Duration,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<Option<Answering>, Refused> {
        let (outbox, cursor) = Outbox::new(OPENING);
        let exchange = Arc::new(Exchange::of_request(outbox, 1));
        let envelope = parse(&message).map_err(|_| Refused::Ended)?;
        let id = envelope.raw_id();
        let ask = Ask { envelope: &envelope, exchange: &exchange, timeout, is_own: true };
        let draft = Draft::new(&ask, self.peer, None, Instant::now()).ok_or(Refused::Ended)?;
        let mut multiplexer = self.worker.shared().multiplexer.lock();
        if !is_wanted() {
            return Ok(None);
        }
        self.put(&mut multiplexer, draft)?;
        Ok(Some(Answering { cursor, id }))
    }

    /// Waits for the answer to a request of the gateway's own.
    ///
    /// # Errors
    /// The child goes before it answers.
    pub(super) async fn answer_to(&self, mut answering: Answering) -> Result<Bytes, Failure> {
        loop {
            let entry = answering.cursor.next().await.ok_or_else(|| Failure::refused(Refused::Ended))?;
            if entry.answer {
                // What it is answered with when the child has gone is no answer of the child.
                let failure = self.worker.failure().zip(answering.id.as_ref());
                let failure = failure.filter(|(failure, id)| failure.response(id) == entry.message);
                return failure.map_or(Ok(entry.message), |(failure, _)| Err(failure));
            }
        }
    }

    /// What the child is still to grant the session, as the one before it had. To be locked after the multiplexer, if both
    /// are.
    pub(super) fn owed(&self) -> &Mutex<BTreeSet<Standing>> {
        &self.owed
    }

    /// Why the child takes nothing.
    pub(super) async fn failed(&self, refused: Refused) -> Failure {
        if refused == Refused::Ended {
            // It ended before it could be spoken to: how, is known in a moment.
            self.worker.ended().await;
        }
        self.worker.failure().unwrap_or_else(|| Failure::refused(refused))
    }

    /// Takes the session off the child, whoever else still holds this: its calls fail now.
    pub fn leave(&self) {
        self.worker.shared().detach(self.peer);
    }

    /// Whether nothing of this session is in flight, either way, nor a task of it left that it may come back for.
    pub fn is_idle(&self) -> bool {
        self.worker.shared().multiplexer.lock().is_idle_for(self.peer)
    }

    /// Whether the child has nothing to do for this session; but there may be results of tasks that it has not fetched.
    pub fn is_done(&self) -> bool {
        self.worker.shared().multiplexer.lock().is_done_for(self.peer)
    }

    /// Whether a request is about a task of this session on this child, which takes it though it takes no new calls.
    pub fn takes_about_task(&self, envelope: &Envelope<'_>) -> bool {
        self.is_alive() && self.worker.shared().multiplexer.lock().is_about_task_here(self.peer, envelope)
    }

    /// Whether messages can still be sent.
    pub fn is_alive(&self) -> bool {
        self.worker.is_alive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leave();
        if self.exclusive {
            self.worker.stop();
        }
    }
}
