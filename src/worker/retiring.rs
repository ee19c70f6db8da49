//! A child that is due to be replaced takes no new calls. It finishes those that are in flight on it, with all that
//! belongs to them, and ends as soon as there are none.

use std::fmt;

use super::calls::Multiplexer;
use super::{Due, Shared};
use crate::telemetry::Cause;

impl Shared {
    /// Lets the child take no more calls. Takes the locked tables, so that no call comes in between.
    pub(super) fn retire(&self, multiplexer: &Multiplexer, due: Due) {
        if self.is_retired() {
            return;
        }
        self.signals.retired.cancel();
        if due != Due::IdleTimeout {
            self.metrics.recycled(due.key());
        }
        let server = &self.origin.server;
        if Cause::info("child retires", server.to_string()).is_news(20) {
            let (tenant, session) = self.origin.names();
            let (pid, calls, in_flight) = (self.life.pid, multiplexer.total, multiplexer.load());
            tracing::info!(%tenant, %server, %session, pid, why = due.key(), calls, in_flight, "child retires: it takes no more calls");
        }
        self.something_is_over();
    }

    /// Logs why the gateway ends a child, at most 20 times in a period: clients can cause that as often as they like.
    pub(super) fn log_ending(&self, cause: &'static str, why: fmt::Arguments<'_>) {
        let (server, (tenant, session)) = (&self.origin.server, self.origin.names());
        if Cause::new(cause, server.to_string()).is_news(20) {
            tracing::warn!(%tenant, %server, %session, "child ended: {why}");
        }
    }

    /// Stops a retired child that has nothing left to do, and detaches the sessions that have another child and nothing
    /// left on this one. Does nothing while the reader is still delivering: the reader calls again.
    pub(super) fn wind_up(&self) {
        let (ready, is_idle) = {
            let multiplexer = self.multiplexer.lock();
            (multiplexer.ready_to_leave(), multiplexer.is_idle())
        };
        if !self.is_retired() || !self.health.lock().is_listened_to() {
            return;
        }
        if is_idle {
            self.signals.stop.cancel();
        }
        for (id, holder) in ready.into_iter().filter_map(|id| Some((id, self.holders.get(id)?))) {
            self.detach(id);
            holder.let_go();
        }
    }
}
