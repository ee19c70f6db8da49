//! A session's hold on a worker: what it sends with. Dropped, the session is off the child: its calls are cancelled,
//! and a child that was its alone is stopped.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::calls::{
    Ask, Draft, Expired, Kept, LeaseId, Multiplexer, Notified, Outgoing, Party, Refused, Reported, Standing,
    answer_frame, cancellation_frame,
};
use super::{Due, Failure, LeaseHolder, Queued, Worker, deliver};
use crate::jsonrpc::{Envelope, Kind, notification_frame, parse};
use crate::mcp::{ambiguity, method};
use crate::memory::Account;
use crate::stream::{Budget, Cursor, Exchange, Outbox};
use crate::telemetry::{Direction, DropReason};

/// The budget for the one answer to a request of the gateway's own.
const OWN_ANSWER: Budget = Budget { messages: 4, bytes: 1024 * 1024 };

/// A session's hold on a worker. Dropping the lease cancels the session's calls, and stops an exclusive child.
pub struct Lease {
    worker: Worker,
    peer: LeaseId,
    /// Whether the child is this session's alone, and goes with the lease.
    exclusive: bool,
    /// Dropped with the lease: for example the capacity that an exclusive child occupies, which its successor inherits.
    held: Option<Arc<dyn Any + Send + Sync>>,
    /// The account for what the session's client sends, and for what waits for the client.
    account: Account,
    /// The bytes of the session in the stdin queue; `None` where sessions do not share the child.
    queued: Option<Queued>,
    /// The state that another child granted the session, and this child has not granted yet. Locked after the
    /// multiplexer.
    owed: Mutex<BTreeSet<Standing>>,
}

impl Lease {
    /// Puts a session on a worker. `exclusive`: the worker stops with the lease.
    pub fn new(worker: Worker, holder: Weak<dyn LeaseHolder>, exclusive: bool) -> Self {
        Self::of(worker, holder, exclusive, &[])
    }

    /// Puts a session on a worker that others use as well. What the session holds of the child counts for these parties
    /// too, the tenant before the principal.
    pub fn shared(worker: Worker, holder: Weak<dyn LeaseHolder>, parties: &[Party]) -> Self {
        Self::of(worker, holder, false, parties)
    }

    fn of(worker: Worker, holder: Weak<dyn LeaseHolder>, exclusive: bool, parties: &[Party]) -> Self {
        let shared = worker.shared();
        let account = holder.upgrade().and_then(|holder| holder.account());
        let account = account.unwrap_or_else(|| shared.payer.account().clone());
        let peer = shared.holders.insert(holder);
        let mut multiplexer = shared.multiplexer.lock();
        let holdings = multiplexer.attach_of(peer, parties);
        multiplexer.touch(peer, Instant::now());
        drop(multiplexer);
        let queued = (!shared.is_exclusive()).then(|| Queued::of(holdings));
        Self { worker, peer, exclusive, held: None, account, queued, owed: Mutex::default() }
    }

    pub(super) fn peer(&self) -> LeaseId {
        self.peer
    }

    /// Gives the lease another holder. Server requests that are open are refused: the new holder's client was not
    /// asked.
    pub fn hand_to(&self, holder: Weak<dyn LeaseHolder>) {
        let shared = self.worker.shared();
        shared.holders.replace(self.peer, holder);
        shared.expire(|multiplexer| {
            let frames = multiplexer.server_requests.refuse(self.peer);
            Expired { frames, ..Expired::default() }
        });
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

    /// Whether a successor of the worker inherits the held value: the worker takes no calls any more, and has not been
    /// ended as idle. The capacity of an idle one is for those who wait.
    pub fn leaves_capacity(&self) -> bool {
        self.held.is_some() && !self.worker.takes_calls() && !self.worker.is_given_up_as_idle()
    }

    /// The worker.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Sends a request of the client. The exchange gets an answer in every case. With `kept`, the holder is asked to
    /// send the request again after a crash. A retired child takes only requests about tasks of this session.
    ///
    /// # Errors
    /// The child does not take the request; the exchange gets no answer then.
    pub fn call(&self, ask: &Ask<'_>, kept: Option<Kept>) -> Result<(), Refused> {
        let shared = self.worker.shared();
        let draft = Draft::new(ask, self.peer, kept, Instant::now())?;
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

    /// Puts a request into the tables, and its frame into the stdin queue. Returns whether the child gets the request.
    fn put(&self, multiplexer: &mut Multiplexer, draft: Draft<'_>) -> Result<bool, Refused> {
        let (shared, ask) = (self.worker.shared(), draft.ask);
        let outgoing = multiplexer.put(draft)?;
        if multiplexer.timer.take_moved() {
            shared.signals.deadline_moved.notify_one();
        }
        match outgoing {
            Outgoing::Forward(number, frame) => {
                let queued = self.queued.as_ref().filter(|_| !ask.is_own);
                self.push_of(queued, frame).inspect_err(|_| multiplexer.forget(number))?;
                return Ok(true);
            }
            Outgoing::Local(answer) => deliver(&shared.metrics, ask.exchange, answer),
            Outgoing::Wait => {}
        }
        Ok(false)
    }

    /// Sends a request again that another child has crashed over. After a second crash the request fails.
    pub fn call_again(&self, ask: &Ask<'_>) -> Result<(), Refused> {
        self.call(ask, None)?;
        self.worker.shared().metrics.resent.inc();
        Ok(())
    }

    /// Sends a notification of the client. A cancellation of a call that is over is ignored; other notifications that
    /// lead nowhere are dropped and counted.
    ///
    /// # Errors
    /// The child takes no more messages now.
    pub fn notify(&self, envelope: &Envelope<'_>) -> Result<(), Refused> {
        if let Some(taken) = self.follow_up(envelope) {
            return taken;
        }
        let shared = self.worker.shared();
        match envelope.method.as_deref().unwrap_or_default() {
            method::CANCELLED => Ok(()),
            method::INITIALIZED if ambiguity(envelope).is_none() => {
                shared.say_initialized(self.account.freeze(notification_frame(envelope, &mut []))?)
            }
            _ => {
                let notified = shared.multiplexer.lock().notified_by_client(self.peer, envelope);
                match notified.written(envelope) {
                    Notified::Forward(frame) => {
                        let frame = self.account.freeze(frame)?;
                        // Under the lock: a child that was idle until now gets the notification, or the next child.
                        let _tables = shared.multiplexer.lock();
                        let is_idle = shared.is_given_up_as_idle();
                        return if is_idle { Err(Refused::Retired) } else { self.push(frame) };
                    }
                    Notified::Drop(reason) => shared.metrics.dropped(reason),
                    Notified::Ignore => {}
                }
                Ok(())
            }
        }
    }

    /// Sends the client's answer to a server request. An answer to no open request is dropped and counted.
    pub fn answer(&self, envelope: &Envelope<'_>) -> Result<(), Refused> {
        self.follow_up(envelope).unwrap_or_else(|| {
            self.worker.shared().metrics.dropped(DropReason::UnknownResponse);
            Ok(())
        })
    }

    /// Sends a message about something in flight on this child: a cancellation, the client's answer to a server
    /// request, or its progress. `None` if the message is about nothing in flight here.
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

    /// Sends the client's answer to a server request; `None` if the child waits for no such answer.
    fn answer_child(&self, envelope: &Envelope<'_>) -> Option<Result<(), Refused>> {
        let shared = self.worker.shared();
        let (number, id) = shared.multiplexer.lock().server_requests.answered_with(self.peer, envelope)?;
        let frame = match self.account.freeze(answer_frame(&id, envelope)) {
            Ok(frame) => frame,
            Err(exhausted) => return Some(Err(exhausted.into())),
        };
        let reported = Reported::by(envelope);
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

    /// Sends the client's progress with a server request; `None` if the child waits for no such progress.
    fn progress(&self, envelope: &Envelope<'_>) -> Option<Result<(), Refused>> {
        let shared = self.worker.shared();
        let notified = shared.multiplexer.lock().notified_by_client(self.peer, envelope);
        let Notified::Forward(frame) = notified.written(envelope) else { return None };
        let multiplexer = shared.multiplexer.lock();
        // Meanwhile the request may be over, and its token may be that of another request.
        let is_open = matches!(multiplexer.notified_by_client(self.peer, envelope), Notified::Forward(_));
        is_open.then(|| self.push(self.account.freeze(frame)?))
    }

    /// Cancels a call for its client; `None` if no such call is in flight.
    fn cancel(&self, envelope: &Envelope<'_>) -> Option<Result<(), Refused>> {
        let shared = self.worker.shared();
        let number = shared.multiplexer.lock().cancelled_by_client(self.peer, envelope)?;
        let frame = self.account.freeze(cancellation_frame(number, envelope));
        let mut multiplexer = shared.multiplexer.lock();
        // Meanwhile the call may have been answered.
        if !multiplexer.has_call(self.peer, number) {
            return None;
        }
        let pushed = frame.map_err(Refused::from).and_then(|frame| self.push(frame));
        // Where there is no room the call goes on, and the client may cancel again. A child that has ended need not
        // hear of it.
        if pushed.is_err_and(Refused::is_busy) {
            return Some(pushed);
        }
        let now = Instant::now();
        multiplexer.cancel(number, now).into_iter().for_each(|call| call.exchange.settle());
        shared.health.lock().worked(now);
        Some(Ok(()))
    }

    fn push(&self, frame: Bytes) -> Result<(), Refused> {
        self.push_of(self.queued.as_ref(), frame)
    }

    fn push_of(&self, queued: Option<&Queued>, frame: Bytes) -> Result<(), Refused> {
        let shared = self.worker.shared();
        shared.metrics.carried(Direction::ToServer, frame.len());
        shared.stdin.push_of(queued, frame)
    }

    /// Sends the child its `initialize`, and waits for the answer, at most `limits.start_timeout`.
    ///
    /// # Errors
    /// The child does not take the request, does not answer in time, or ends before.
    pub async fn open(&self, message: &[u8]) -> Result<Bytes, Failure> {
        self.ask(message, self.worker.shared().server.limits.start_timeout).await
    }

    /// Sends a request of the gateway's own, and waits for the answer, which may be an error: also the gateway's own at
    /// a time-out.
    ///
    /// # Errors
    /// The child does not take the request, or fails before its answer.
    pub async fn ask(&self, message: &[u8], timeout: Duration) -> Result<Bytes, Failure> {
        match self.put_own(message, timeout, || true) {
            Ok(Some(answers)) => self.answer_to(answers).await,
            Ok(None) => Err(Failure::refused(Refused::Ended)),
            Err(refused) => Err(self.failed(refused).await),
        }
    }

    /// Sends a request of the gateway's own. `is_wanted` decides under the lock of the tables, so that no request of
    /// the session comes in between; `None` if not. The answer comes from the cursor.
    pub(super) fn put_own(
        &self,
        message: &[u8],
        timeout: Duration,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<Option<Cursor>, Refused> {
        let (outbox, cursor) = Outbox::new(OWN_ANSWER);
        let exchange = Arc::new(Exchange::of_request(outbox, 1, &self.account));
        let envelope = parse(message).map_err(|_| Refused::Ended)?;
        let ask = Ask { envelope: &envelope, exchange: &exchange, timeout, is_own: true };
        let draft = Draft::new(&ask, self.peer, None, Instant::now())?;
        let mut multiplexer = self.worker.shared().multiplexer.lock();
        if !is_wanted() {
            return Ok(None);
        }
        self.put(&mut multiplexer, draft)?;
        Ok(Some(cursor))
    }

    /// Waits for the answer to a request of the gateway's own. An error, also the gateway's own at a time-out, is an
    /// answer.
    ///
    /// # Errors
    /// The child has failed, and the request ends without an answer.
    pub(super) async fn answer_to(&self, mut answers: Cursor) -> Result<Bytes, Failure> {
        while let Some(entry) = answers.next().await {
            if entry.answer {
                return Ok(entry.message);
            }
        }
        Err(self.worker.failure().unwrap_or_else(|| Failure::refused(Refused::Ended)))
    }

    /// The state that another child granted the session, and this child has not granted yet. Locked after the
    /// multiplexer.
    pub(super) fn owed(&self) -> &Mutex<BTreeSet<Standing>> {
        &self.owed
    }

    /// The failure for a refusal. Waits for the end of a child that has refused because it ends: then the reason is
    /// known.
    pub(super) async fn failed(&self, refused: Refused) -> Failure {
        if refused == Refused::Ended {
            self.worker.ended().await;
        }
        self.worker.failure().unwrap_or_else(|| Failure::refused(refused))
    }

    /// Removes the session from the child, though the lease is still there. The session's calls fail now.
    pub fn leave(&self) {
        self.worker.shared().detach(self.peer);
    }

    /// Lets the child detach the session as soon as nothing of the session is in flight: the session has another child.
    pub fn leave_when_idle(&self) {
        let shared = self.worker.shared();
        shared.multiplexer.lock().leave_when_idle(self.peer);
        shared.something_is_over();
    }

    /// Whether no message for the session can come from this child any more.
    pub fn is_over(&self) -> bool {
        self.worker.has_ended() || self.worker.shared().holders.get(self.peer).is_none()
    }

    /// Whether nothing of this session is in flight, either way, and the child is kept for no task of the session.
    pub fn is_idle(&self) -> bool {
        self.worker.shared().multiplexer.lock().is_idle_for(self.peer)
    }

    /// When the session took the lease, made a call, or got an answer, whichever came last. `None` once the session is off
    /// the child.
    pub fn last_use(&self) -> Option<Instant> {
        self.worker.shared().multiplexer.lock().last_use_by(self.peer)
    }

    /// Whether the child has nothing to do for this session. Results of tasks may be left to fetch.
    pub fn is_done(&self) -> bool {
        self.worker.shared().multiplexer.lock().is_done_for(self.peer)
    }

    /// Whether the child takes a request though it may take no new calls: the request is about a task of this session
    /// here.
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
