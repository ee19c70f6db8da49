//! The state of one child that its handles, its reader and its supervisor share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, SetOnce};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::{Expired, LeaseId, Multiplexer, Refused, Unsolicited, Withdrawn};
use super::{Due, Failure, Health, Hints, Holders, Payer, Route, Spec, StdinQueue, deliver, lost};
use crate::config::{Isolation, Server};
use crate::mcp::protocol_version;
use crate::memory::Exhausted;
use crate::process::{Charge, Origin, StderrTail};
use crate::stream::{Item, Requester};
use crate::telemetry::{Direction, DropReason, ExitReason, MemoryUse, ServerMetrics};

/// The state of one child that its handles, its reader and its supervisor share.
pub(super) struct Shared {
    pub(super) server: Arc<Server>,
    pub(super) origin: Origin,
    pub(super) charge: Charge,
    pub(super) payer: Payer,
    pub(super) metrics: ServerMetrics,
    pub(super) slow_client_timeout: Duration,
    pub(super) multiplexer: Mutex<Multiplexer>,
    pub(super) stdin: StdinQueue,
    pub(super) stderr: StderrTail,
    /// Requests of the child that could not reach a client, for the supervisor to refuse. Each is lost once, so that
    /// there are at most `limits.max_in_flight`.
    lost: Mutex<Vec<u64>>,
    pub(super) health: Mutex<Health>,
    /// The hints of the child's tools, where `restart.resend` needs them.
    pub(super) hints: Mutex<Hints>,
    pub(super) holders: Holders,
    pub(super) signals: Signals,
    pub(super) life: Life,
}

/// The signals between the tasks of one child.
#[derive(Default)]
pub(super) struct Signals {
    /// Something may time out earlier than the supervisor knows.
    pub(super) deadline_moved: Notify,
    /// A request of the child could not reach a client.
    pub(super) has_lost: Notify,
    /// Something is over on a retired child.
    pub(super) over: Notify,
    /// The child is to end.
    pub(super) stop: SetOnce<()>,
    /// The child takes no more calls. Set under the lock of the multiplexer.
    pub(super) retired: SetOnce<()>,
    /// No time is left to stop politely.
    pub(super) kill: CancellationToken,
    /// The child has ended: the rest of its output is read without delay.
    pub(super) gone: CancellationToken,
    /// The child has answered `initialize`, or is no longer waited for.
    pub(super) settled: CancellationToken,
}

/// The course of a child's life.
pub(super) struct Life {
    pub(super) pid: u32,
    pub(super) born: Instant,
    /// The answer to `initialize`, which a child gets once.
    pub(super) opened: OnceLock<Bytes>,
    /// The number of lines on stdout that are no messages.
    pub(super) noise: AtomicU64,
    /// Whether the child has received `notifications/initialized`.
    initialized: AtomicBool,
    /// Why the child takes no more calls. Set under the lock of the multiplexer, before `Signals::retired`.
    pub(super) due: OnceLock<Due>,
    /// Why the child ends. Set before any call fails of that.
    pub(super) failure: OnceLock<Failure>,
    /// Set when the child is reaped, and all its calls are answered.
    pub(super) end: SetOnce<End>,
}

/// The end of a child.
pub(super) struct End {
    pub(super) reason: ExitReason,
    /// Whether a session was on the child.
    pub(super) was_in_use: bool,
}

impl Shared {
    pub(super) fn new(spec: Spec, charge: Charge, pid: u32) -> Self {
        let limits = &spec.server.limits;
        let mut multiplexer = Multiplexer::new(limits.max_in_flight, spec.server.isolation != Isolation::Session);
        (multiplexer.harakiri, multiplexer.cancel_grace) = (limits.harakiri, limits.cancel_grace);
        Self {
            multiplexer: Mutex::new(multiplexer),
            stdin: StdinQueue::new(limits.stdin_queue, spec.metrics.stdin_queue.clone()),
            stderr: StderrTail::new(limits.stderr_tail),
            lost: Mutex::default(),
            health: Mutex::new(Health::new(Instant::now())),
            hints: Mutex::default(),
            holders: Holders::new(),
            signals: Signals { kill: spec.kill, ..Signals::default() },
            life: Life {
                pid,
                born: Instant::now(),
                opened: OnceLock::new(),
                noise: AtomicU64::default(),
                initialized: AtomicBool::new(false),
                due: OnceLock::new(),
                failure: OnceLock::new(),
                end: SetOnce::new(),
            },
            server: spec.server,
            origin: spec.origin,
            charge,
            payer: spec.payer,
            metrics: spec.metrics,
            slow_client_timeout: spec.slow_client_timeout,
        }
    }

    /// Whether the child is one session's alone, for its whole life. Then the child may wait for the session's client.
    pub(super) fn is_exclusive(&self) -> bool {
        self.server.isolation == Isolation::Session
    }

    /// Whether the child still takes messages.
    pub(super) fn is_alive(&self) -> bool {
        !self.life.end.initialized() && !self.signals.stop.initialized()
    }

    /// Sends `notifications/initialized`, unless the child has received it: only the first caller's frame is sent. The
    /// lock of the tables keeps the order: a later caller's calls come behind that frame.
    ///
    /// # Errors
    /// The child takes no more messages, or is ended because it is idle.
    pub(super) fn say_initialized(&self, frame: Bytes) -> Result<(), Refused> {
        let _tables = self.multiplexer.lock();
        if !self.is_initialized() {
            if self.is_given_up_as_idle() {
                return Err(Refused::Retired);
            }
            self.metrics.carried(Direction::ToServer, frame.len());
            self.stdin.push(frame, self.payer.account())?;
            self.life.initialized.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether `notifications/initialized` is queued for the child, or sent.
    pub(super) fn is_initialized(&self) -> bool {
        self.life.initialized.load(Ordering::Acquire)
    }

    /// Whether the child has answered `initialize`. From then on its unexpected end is a crash, and no failed start.
    pub(super) fn is_opened(&self) -> bool {
        self.life.opened.get().is_some()
    }

    /// Keeps the answer to `initialize` for later sessions, if the answer names a protocol version.
    pub(super) fn note_opened(&self, answer: &Bytes) {
        if protocol_version(answer).is_some() {
            let _ = self.life.opened.set(answer.clone());
            self.signals.settled.cancel();
        }
    }

    /// Notes why the child ends. Returns the reason that was noted first.
    pub(super) fn fail(&self, failure: Failure) -> Failure {
        self.life.failure.get_or_init(|| failure).clone()
    }

    /// Sends a frame of the gateway's own. The frame is dropped and counted if the child has ended or its queue is
    /// full, and where the child does not read and there is no room to charge the frame.
    pub(super) fn send(&self, frame: Bytes) {
        if self.stdin.push(frame, self.payer.account()).is_err() {
            self.metrics.dropped(DropReason::StreamClosed);
        }
    }

    /// Removes a session from the child. Its calls fail.
    pub(super) fn detach(&self, lease: LeaseId) {
        if self.holders.remove(lease) {
            let gone = self.expire(|multiplexer| multiplexer.detach(lease, Instant::now()));
            self.give_up(gone, |_| Failure::stopped(&self.server.name));
        }
    }

    /// Changes the tables by `what`, and queues the frames for the child under the same lock, so that the child gets
    /// the frames in the order of the changes. The frames are taken out of the returned value.
    pub(super) fn expire(&self, what: impl FnOnce(&mut Multiplexer) -> Expired) -> Expired {
        let mut multiplexer = self.multiplexer.lock();
        let mut expired = what(&mut multiplexer);
        if !expired.frames.is_empty() {
            self.health.lock().worked(Instant::now());
        }
        expired.frames.drain(..).for_each(|frame| self.send(frame));
        drop(multiplexer);
        self.something_is_over();
        expired
    }

    /// Answers the given calls with an error, which `failure` makes from the time-out of each, and tells clients which
    /// server requests are over. A call of the gateway's own gets no answer where the child has failed: its exchange
    /// ends.
    pub(super) fn give_up(&self, expired: Expired, failure: impl Fn(Duration) -> Failure) {
        // First: the client may have been asked on the stream of a call that ends now.
        for (withdrawn, message) in expired.withdrawn {
            let len = message.len();
            self.withdraw(withdrawn, || self.payer.account().hold(message, len));
        }
        let has_failed = self.life.failure.get().is_some();
        for call in expired.calls.iter().filter(|call| !(call.is_own && has_failed)) {
            deliver(&self.metrics, &call.exchange, failure(call.timeout()).response(&call.original));
        }
        for waiting in expired.waiting.iter().filter(|waiting| !(waiting.is_own && has_failed)) {
            deliver(&self.metrics, &waiting.exchange, failure(waiting.timeout).response(&waiting.id));
        }
    }

    /// Refuses the requests of the child that could not reach a client.
    pub(super) fn refuse_lost(&self) {
        let lost = std::mem::take(&mut *self.lost.lock());
        lost.into_iter().for_each(|number| self.refuse_undelivered(number));
    }

    /// Answers a request of the child with an error, as the request could not reach a client. Does nothing if the
    /// request is over.
    pub(super) fn refuse_undelivered(&self, number: u64) {
        let refusal = self.multiplexer.lock().server_requests.undelivered(number);
        refusal.into_iter().for_each(|refusal| self.send(refusal));
        self.something_is_over();
    }

    /// Sends a client the cancellation of a server request, or removes the request before the client has seen it. The
    /// request is removed also where there is no room for the cancellation. `charged` is the cancellation, charged to
    /// whoever pays for the child.
    pub(super) fn withdraw(&self, withdrawn: Withdrawn, charged: impl FnOnce() -> Result<Bytes, Exhausted>) {
        let Withdrawn { peer, number, in_flight } = withdrawn;
        let Some(holder) = self.holders.get(peer).filter(|holder| !holder.forget(number)) else { return };
        let Ok(message) = charged() else { return self.metrics.had_no_room(MemoryUse::Stream) };
        let item = Item::notification(message);
        let dropped = match holder.route(&item, Unsolicited::Notification, &in_flight) {
            Route::Stream(outbox) => outbox.push_own(item).err().map(lost),
            Route::Kept => None,
            Route::Nowhere => Some(DropReason::NoStream),
        };
        dropped.into_iter().for_each(|reason| self.metrics.dropped(reason));
    }

    /// Whether the child takes no more calls, and ends when nothing is in flight.
    pub(super) fn is_retired(&self) -> bool {
        self.signals.retired.initialized()
    }

    /// Whether the child takes no more calls because it was idle.
    pub(super) fn is_given_up_as_idle(&self) -> bool {
        self.life.due.get().is_some_and(|due| due.is_idleness())
    }

    /// Wakes the supervisor of a retired child: something is over, which may have been the last.
    pub(super) fn something_is_over(&self) {
        if self.is_retired() {
            self.signals.over.notify_one();
        }
    }
}

impl Requester for Shared {
    fn undelivered(&self, number: u64) {
        self.lost.lock().push(number);
        self.signals.has_lost.notify_one();
    }
}
