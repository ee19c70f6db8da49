//! A handle to a running child, and what all who serve it share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::{Expired, LeaseId, Multiplexer, Refused};
use super::delivery::deliver;
use super::error::Failure;
use super::health::Health;
use super::hints::Hints;
use super::lease_holder::LeaseHolder;
use super::phase::Phase;
use super::spec::Spec;
use super::stdin::StdinQueue;
use crate::config::{Isolation, Resend, Server, ServerName, TenantId};
use crate::mcp::{INITIALIZED, protocol_version};
use crate::process::{Charge, Origin, StderrTail};
use crate::telemetry::{Direction, DropReason, ExitReason, ServerMetrics};

/// What the handle, the reader and the supervisor share.
pub(super) struct Shared {
    pub(super) server: Arc<Server>,
    pub(super) origin: Origin,
    pub(super) charge: Charge,
    pub(super) multiplexer: Mutex<Multiplexer>,
    /// Notified when something is due before all that the supervisor knows of.
    pub(super) deadline_moved: Notify,
    pub(super) metrics: ServerMetrics,
    pub(super) slow_client_timeout: Duration,
    pub(super) stdin: StdinQueue,
    pub(super) stderr: StderrTail,
    pub(super) noise: AtomicU64,
    /// Requests of the child that were lost on their way to a client, for the supervisor to refuse. Each is lost once, and
    /// there are no more than may be in flight.
    pub(super) lost: Mutex<Vec<u64>>,
    pub(super) has_lost: Notify,
    pub(super) stop: CancellationToken,
    /// Cancelled, under the lock of the multiplexer, when the child takes no more calls.
    pub(super) retired: CancellationToken,
    /// Notified when something is over on a retired child.
    pub(super) over: Notify,
    pub(super) kill: CancellationToken,
    /// Cancelled when the child is reaped: what is left of what it has said is read without delay.
    pub(super) gone: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) exit: OnceLock<ExitReason>,
    /// Whether sessions were on it when it ended.
    pub(super) was_in_use: OnceLock<bool>,
    /// Why the child went, known before any call fails of it.
    pub(super) failure: OnceLock<Failure>,
    pub(super) pid: OnceLock<u32>,
    pub(super) health: Mutex<Health>,
    /// What its tools say of themselves, where that decides anything.
    pub(super) hints: Mutex<Hints>,
    holders: Mutex<HashMap<LeaseId, Weak<dyn LeaseHolder>>>,
    next_peer: AtomicU64,
    born: Instant,
    /// Since when no session has been on it. Changed under the lock of `holders` only.
    unused_since: Mutex<Option<Instant>>,
    /// Notified when the child has answered `initialize`.
    settled: CancellationToken,
    /// The answer to `initialize`, which a child hears once.
    opened: OnceLock<Bytes>,
    initialized: AtomicBool,
}

impl Shared {
    pub(super) fn new(spec: Spec, charge: Charge) -> Self {
        let limits = &spec.server.limits;
        let is_shared = spec.server.isolation != Isolation::Session;
        let mut multiplexer = Multiplexer::new(limits.max_in_flight, is_shared);
        (multiplexer.harakiri, multiplexer.cancel_grace) = (limits.harakiri, limits.cancel_grace);
        Self {
            multiplexer: Mutex::new(multiplexer),
            deadline_moved: Notify::new(),
            stdin: StdinQueue::new(limits.stdin_queue, spec.metrics.stdin_queue.clone()),
            stderr: StderrTail::new(limits.stderr_tail),
            noise: AtomicU64::new(0),
            lost: Mutex::default(),
            has_lost: Notify::new(),
            stop: CancellationToken::new(),
            retired: CancellationToken::new(),
            over: Notify::new(),
            kill: spec.kill,
            gone: CancellationToken::new(),
            ended: CancellationToken::new(),
            exit: OnceLock::new(),
            was_in_use: OnceLock::new(),
            failure: OnceLock::new(),
            pid: OnceLock::new(),
            health: Mutex::new(Health::new(Instant::now())),
            hints: Mutex::default(),
            holders: Mutex::default(),
            next_peer: AtomicU64::new(0),
            born: Instant::now(),
            unused_since: Mutex::new(Some(Instant::now())),
            settled: CancellationToken::new(),
            opened: OnceLock::new(),
            initialized: AtomicBool::new(false),
            server: spec.server,
            origin: spec.origin,
            charge,
            metrics: spec.metrics,
            slow_client_timeout: spec.slow_client_timeout,
        }
    }

    pub(super) fn holder(&self, lease: LeaseId) -> Option<Arc<dyn LeaseHolder>> {
        self.holders.lock().get(&lease)?.upgrade()
    }

    pub(super) fn holders(&self) -> Vec<Arc<dyn LeaseHolder>> {
        self.holders.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Whether one session alone is on the child, for good: then the child may wait for its client.
    pub(super) fn is_exclusive(&self) -> bool {
        self.server.isolation == Isolation::Session
    }

    /// Tells the child `notifications/initialized`, unless it has heard it already: once, whoever says it first. Under the
    /// lock of the tables, so that whoever finds that it has been said comes behind it.
    pub(super) fn say_initialized(&self, frame: Bytes) -> Result<(), Refused> {
        let _tables = self.multiplexer.lock();
        if !self.is_initialized() {
            self.metrics.carried(Direction::ToServer, frame.len());
            self.stdin.push(frame)?;
            self.initialized.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether the child has heard `notifications/initialized`.
    pub(super) fn is_initialized(&self) -> bool {
        self.initialized.load(Ordering::Acquire)
    }

    /// Whether the child has answered `initialize`: from then on its end is a crash, and no failed start.
    pub(super) fn is_opened(&self) -> bool {
        self.opened.get().is_some()
    }

    /// The child has answered `initialize`. A good answer is kept: everybody else gets it from here.
    pub(super) fn note_opened(&self, answer: &Bytes) {
        if protocol_version(answer).is_some() {
            let _ = self.opened.set(answer.clone());
            self.settled.cancel();
        }
    }

    /// Sends a frame of the gateway's own. If the child is gone or its queue is full, its call times out over there.
    pub(super) fn send(&self, frame: Bytes) {
        if self.stdin.push(frame).is_err() {
            self.metrics.dropped(DropReason::StreamClosed);
        }
    }

    /// Takes a session off the child, if it is on it.
    pub(super) fn detach(&self, peer: LeaseId) {
        {
            let mut holders = self.holders.lock();
            if holders.remove(&peer).is_none() {
                return;
            }
            if holders.is_empty() {
                *self.unused_since.lock() = Some(Instant::now());
            }
        }
        let gone = self.expire(|multiplexer| multiplexer.detach(peer, Instant::now()));
        self.give_up(gone, |_| Failure::stopped(&self.server.name));
    }

    /// Gives something up, and tells the child before anybody else can tell it something: what it hears is in the order
    /// of the tables.
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

    /// Fails what has been given up.
    pub(super) fn give_up(&self, expired: Expired, failure: impl Fn(Duration) -> Failure) {
        // First: it may be on the stream of a call that ends with its answer.
        expired.withdrawn.into_iter().for_each(|(withdrawn, message)| self.withdraw(withdrawn, message));
        for call in expired.calls {
            deliver(&self.metrics, &call.exchange, failure(call.timeout()).response(&call.original));
        }
        for waiting in expired.waiting {
            deliver(&self.metrics, &waiting.exchange, failure(waiting.timeout).response(&waiting.id));
        }
    }
}

/// A handle to a running child; cheap to clone.
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// The child is a tenant's, and a session's, from now on.
    pub fn adopt(&self, tenant: &TenantId, session: &str) {
        self.0.charge.adopt(tenant, session);
    }

    /// The configured server that the child runs.
    pub fn server(&self) -> &ServerName {
        &self.0.server.name
    }

    /// The tenant that the child runs for; `None` for a spare, and for a child that all tenants share.
    pub fn tenant(&self) -> Option<TenantId> {
        self.0.origin.tenant()
    }

    /// The reason of the child's end, once it has ended.
    pub fn exit_reason(&self) -> Option<ExitReason> {
        self.0.exit.get().copied()
    }

    pub(super) fn attach(&self, holder: Weak<dyn LeaseHolder>) -> LeaseId {
        let id = LeaseId(self.0.next_peer.fetch_add(1, Ordering::Relaxed));
        {
            let mut holders = self.0.holders.lock();
            holders.insert(id, holder);
            *self.0.unused_since.lock() = None;
        }
        self.0.multiplexer.lock().attach(id);
        id
    }

    /// What the child says is for another from now on, or for nobody. What it has asked nobody else can answer.
    pub(super) fn readdress(&self, lease: LeaseId, to: Weak<dyn LeaseHolder>) {
        self.0.holders.lock().entry(lease).and_modify(|holder| *holder = to);
        self.0.expire(|multiplexer| {
            let frames = multiplexer.server_requests.refuse(lease);
            Expired { frames, ..Expired::default() }
        });
    }

    /// The answer to `initialize`, once there is a good one.
    pub fn opened(&self) -> Option<&Bytes> {
        self.0.opened.get()
    }

    /// Tells a child that sessions share `notifications/initialized`: its client is the gateway, and no session's call may
    /// come before it, though another forgets to say it. A child that is ending says so to whoever comes next.
    pub fn say_initialized(&self) {
        let _ = self.0.say_initialized(Bytes::from_static(INITIALIZED));
    }

    /// Whether the child has heard `notifications/initialized`.
    pub fn is_initialized(&self) -> bool {
        self.0.is_initialized()
    }

    /// Sessions on the child that still exist, for operators.
    pub fn listeners(&self) -> usize {
        self.0.holders().len()
    }

    /// Sessions on the child.
    pub fn sessions(&self) -> usize {
        self.0.holders.lock().len()
    }

    /// Whether sessions are on it, or were when it ended: from then on they leave.
    pub fn is_in_use(&self) -> bool {
        self.0.was_in_use.get().copied().unwrap_or_else(|| self.sessions() > 0)
    }

    /// Calls in flight.
    pub fn load(&self) -> usize {
        self.0.multiplexer.lock().load()
    }

    /// Calls of clients that the child has answered.
    pub fn answered(&self) -> u64 {
        self.0.multiplexer.lock().answered
    }

    /// Whether a call of a tool may be sent again, where `resend` says so; `None` if the tool is not known.
    pub(super) fn may_resend(&self, resend: Resend, tool: &str) -> Option<bool> {
        self.0.hints.lock().allow(resend, tool)
    }

    /// Calls that clients have put to it.
    pub fn calls(&self) -> u64 {
        self.0.multiplexer.lock().total
    }

    /// Since when no session has been on it; `None` while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        *self.0.unused_since.lock()
    }

    /// Waits until the child has answered `initialize`.
    pub async fn settled(&self) {
        self.0.settled.cancelled().await;
    }

    /// Its start is over as far as it can be.
    pub fn settle(&self) {
        self.0.settled.cancel();
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.0.born.elapsed()
    }

    /// Its child's process id.
    pub fn pid(&self) -> Option<u32> {
        self.0.pid.get().copied()
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        if self.has_ended() {
            Phase::Exited
        } else if self.0.stop.is_cancelled() || self.is_retired() {
            Phase::Draining
        } else if !self.0.is_opened() {
            Phase::Starting
        } else if self.is_idle() {
            Phase::Ready
        } else {
            Phase::Busy
        }
    }

    /// Whether messages can still be sent.
    pub fn is_alive(&self) -> bool {
        !self.has_ended() && !self.0.stop.is_cancelled()
    }

    /// Whether the child is reaped, and all its calls are answered.
    pub fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Whether no request is in flight, in either direction, and no task is left that its session may come back for.
    pub fn is_idle(&self) -> bool {
        self.0.multiplexer.lock().is_idle()
    }

    /// Whether both are handles to the same child.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Why the child went, or is about to go.
    pub fn failure(&self) -> Option<Failure> {
        self.0.failure.get().cloned()
    }

    /// Stops the child: closes stdin, waits, TERM, waits, KILL. Returns at once.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Whether a client got anything of it, or it has ended, and not by any fault of its own.
    pub fn was_of_use(&self) -> bool {
        self.answered() > 0 || self.0.exit.get().is_some_and(|reason| !reason.is_crash())
    }

    /// Waits until the child is reaped: how it ended.
    pub async fn ended(&self) -> Option<ExitReason> {
        self.0.ended.cancelled().await;
        self.0.exit.get().copied()
    }
}
