//! A child that is due to be replaced takes no new calls. It finishes those that are in flight on it, with all that belongs
//! to them, and ends as soon as there are none.

use std::fmt;

use super::calls::Multiplexer;
use super::handle::{Shared, Worker};
use super::lease::Lease;
use super::phase::Due;
use crate::telemetry::Cause;

impl Shared {
    pub(super) fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// Takes no calls from now on. Whoever asks holds the multiplexer: no call comes in between.
    pub(super) fn retire(&self, multiplexer: &Multiplexer, due: Due) {
        if self.is_retired() {
            return;
        }
        self.retired.cancel();
        if due != Due::IdleTimeout {
            self.metrics.recycled(due.key());
        }
        let server = &self.origin.server;
        if Cause::info("child retires", server.to_string()).is_news(20) {
            let (tenant, session) = self.origin.names();
            let (pid, calls, in_flight) = (self.pid.get().copied(), multiplexer.total, multiplexer.load());
            tracing::info!(%tenant, %server, %session, pid, why = due.key(), calls, in_flight, "child retires: it takes no more calls");
        }
        self.something_is_over();
    }

    /// Logs why the gateway ends a child. Clients can bring a child that far as often as they like: so not each time.
    pub(super) fn log_ending(&self, cause: &'static str, why: fmt::Arguments<'_>) {
        let (server, (tenant, session)) = (&self.origin.server, self.origin.names());
        if Cause::new(cause, server.to_string()).is_news(20) {
            tracing::warn!(%tenant, %server, %session, "child ended: {why}");
        }
    }

    /// Something is over, on a child that may be waiting for that.
    pub(super) fn something_is_over(&self) {
        if self.is_retired() {
            self.over.notify_one();
        }
    }

    /// Ends a retired child that has nothing left to do, and lets sessions go that have another and only waited for their
    /// calls on this one.
    pub(super) fn wind_up(&self) {
        let (ready, is_idle) = {
            let multiplexer = self.multiplexer.lock();
            (multiplexer.ready_to_leave(), multiplexer.is_idle())
        };
        // What the reader holds in its hands is in flight too: it says when it has delivered it.
        if !self.is_retired() || !self.health.lock().is_listened_to() {
            return;
        }
        if is_idle {
            self.stop.cancel();
        }
        for (id, holder) in ready.into_iter().filter_map(|id| Some((id, self.holder(id)?))) {
            self.detach(id);
            holder.let_go();
        }
    }
}

impl Worker {
    /// Takes no calls from now on, and ends when nothing is in flight.
    pub fn retire(&self, due: Due) {
        let multiplexer = self.shared().multiplexer.lock();
        self.shared().retire(&multiplexer, due);
    }

    /// Waits until it takes no more calls.
    pub async fn retired(&self) {
        self.shared().retired.cancelled().await;
    }

    /// Whether it finishes what is in flight, and takes no more.
    pub fn is_retired(&self) -> bool {
        self.shared().is_retired()
    }

    /// Whether it takes calls.
    pub fn takes_calls(&self) -> bool {
        self.is_alive() && !self.is_retired()
    }
}

impl Lease {
    /// The session has another child: it is off this one as soon as nothing of it is in flight.
    pub fn leave_when_idle(&self) {
        let shared = self.worker().shared();
        shared.multiplexer.lock().leave_when_idle(self.peer());
        shared.something_is_over();
    }

    /// Whether nothing of the session can come from this child any more.
    pub fn is_over(&self) -> bool {
        self.worker().has_ended() || self.worker().shared().holder(self.peer()).is_none()
    }
}
