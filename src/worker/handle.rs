//! A handle to a running child.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Due, Failure, Payer, Phase, Shared};
use crate::config::{ServerName, TenantId};
use crate::mcp::INITIALIZED;
use crate::telemetry::ExitReason;

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

    /// Assigns a spare to a tenant and a session: its resources count for them from now on.
    pub fn adopt(&self, tenant: &TenantId, session: &str) {
        self.0.charge.adopt(tenant, session);
    }

    /// Charges what the gateway holds of a spare to its tenant from now on.
    pub fn charge_to(&self, payer: Payer) {
        self.0.payer.adopt(payer);
    }

    /// The configured server that the child runs.
    pub fn server(&self) -> &ServerName {
        &self.0.server.name
    }

    /// The tenant that the child runs for; `None` for a spare, and for a child that all tenants share.
    pub fn tenant(&self) -> Option<TenantId> {
        self.0.origin.tenant()
    }

    /// The process id of the child.
    pub fn pid(&self) -> u32 {
        self.0.life.pid
    }

    /// The time since the child was started.
    pub fn age(&self) -> Duration {
        self.0.life.born.elapsed()
    }

    /// The answer to `initialize`; `None` until the child has given one that names a protocol version.
    pub fn opened(&self) -> Option<&Bytes> {
        self.0.life.opened.get()
    }

    /// Waits until the child has answered `initialize`, or [`Self::settle`] was called.
    pub async fn settled(&self) {
        self.0.signals.settled.cancelled().await;
    }

    /// Ends the waiting of [`Self::settled`], though the child has not answered.
    pub fn settle(&self) {
        self.0.signals.settled.cancel();
    }

    /// Sends `notifications/initialized` to a child that sessions share, once: the gateway is its client, and no
    /// session's call may come before. Does nothing if the child takes no message; the next request to the child finds
    /// that out.
    pub fn say_initialized(&self) {
        let _ = self.0.say_initialized(Bytes::from_static(INITIALIZED));
    }

    /// Whether `notifications/initialized` is queued for the child, or sent.
    pub fn is_initialized(&self) -> bool {
        self.0.is_initialized()
    }

    /// The number of leases whose holder still exists.
    pub fn listeners(&self) -> usize {
        self.0.holders.all().len()
    }

    /// The number of leases on the child.
    pub fn sessions(&self) -> usize {
        self.0.holders.len()
    }

    /// Whether a session is on the child; once the child has ended, whether one was at that moment.
    pub fn is_in_use(&self) -> bool {
        self.0.life.end.get().map_or_else(|| self.sessions() > 0, |end| end.was_in_use)
    }

    /// Since when no session has been on the child; `None` while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        self.0.holders.unused_since()
    }

    /// The number of calls in flight.
    pub fn load(&self) -> usize {
        self.0.multiplexer.lock().load()
    }

    /// The number of client calls that the child has answered.
    pub fn answered(&self) -> u64 {
        self.0.multiplexer.lock().answered
    }

    /// The number of client requests that the child has received.
    pub fn calls(&self) -> u64 {
        self.0.multiplexer.lock().total
    }

    /// Whether no request is in flight, in either direction, and the child is kept for no task.
    pub fn is_idle(&self) -> bool {
        self.0.multiplexer.lock().is_idle()
    }

    /// The state of the child.
    pub fn phase(&self) -> Phase {
        if self.has_ended() {
            Phase::Exited
        } else if !self.takes_calls() {
            Phase::Draining
        } else if !self.0.is_opened() {
            Phase::Starting
        } else if self.is_idle() {
            Phase::Ready
        } else {
            Phase::Busy
        }
    }

    /// Whether the child still takes messages: it has not ended, and was not told to.
    pub fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    /// Lets the child take no more calls, and end when nothing is in flight.
    pub fn retire(&self, due: Due) {
        let multiplexer = self.0.multiplexer.lock();
        self.0.retire(&multiplexer, due);
    }

    /// Whether the child could be ended as idle, though sessions are on it.
    pub fn is_dispensable(&self) -> bool {
        self.0.is_dispensable()
    }

    /// Ends the child as idle, if it still is. Sessions on it get another child when they need one. Returns whether the
    /// child goes.
    pub fn give_up_idle(&self, due: Due) -> bool {
        self.0.give_up_idle(due)
    }

    /// Whether the child ends, or has ended, because it was idle.
    pub fn is_given_up_as_idle(&self) -> bool {
        self.0.is_given_up_as_idle()
    }

    /// When a session last used the child: took a lease on it, made a call, or got an answer.
    pub fn last_used(&self) -> Instant {
        self.0.multiplexer.lock().last_use().unwrap_or(self.0.life.born)
    }

    /// Whether the server's idle children are kept (`keep_children`).
    pub fn is_kept(&self) -> bool {
        self.0.server.keep_children
    }

    /// Waits until the child takes no more calls.
    pub async fn retired(&self) {
        self.0.signals.retired.wait().await;
    }

    /// Whether the child takes no more calls, and ends when nothing is in flight.
    pub fn is_retired(&self) -> bool {
        self.0.is_retired()
    }

    /// Whether the child takes new calls.
    pub fn takes_calls(&self) -> bool {
        self.is_alive() && !self.is_retired()
    }

    /// Whether both are handles to the same child.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Ends the child: closes stdin, waits, TERM, waits, KILL. Returns at once.
    pub fn stop(&self) {
        let _ = self.0.signals.stop.set(());
    }

    /// Why the child ends or has ended; `None` while nothing is known.
    pub fn failure(&self) -> Option<Failure> {
        self.0.life.failure.get().cloned()
    }

    /// Whether the child is reaped, and all its calls are answered.
    pub fn has_ended(&self) -> bool {
        self.0.life.end.initialized()
    }

    /// The reason of the child's end; `None` until [`Self::has_ended`].
    pub fn exit_reason(&self) -> Option<ExitReason> {
        self.0.life.end.get().map(|end| end.reason)
    }

    /// Waits until the child is reaped. Returns the reason of its end.
    pub async fn ended(&self) -> ExitReason {
        self.0.life.end.wait().await.reason
    }

    /// Whether the child has answered a client's call, or has ended without a crash.
    pub fn was_of_use(&self) -> bool {
        self.answered() > 0 || self.exit_reason().is_some_and(|reason| !reason.is_crash())
    }
}
