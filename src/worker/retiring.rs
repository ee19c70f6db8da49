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
        let _ = self.life.due.set(due);
        let _ = self.signals.retired.set(());
        match due {
            Due::MaxRequests | Due::MaxAge | Due::MaxRss => self.metrics.recycled(due.key()),
            Due::PoolRoom | Due::TenantRoom | Due::MemoryRoom | Due::ChildIdleTimeout => {
                self.metrics.ended_idle(due.key())
            }
            Due::IdleTimeout => {}
        }
        let server = &self.origin.server;
        if Cause::info("child retires", server.to_string()).is_news(20) {
            let (tenant, session) = self.origin.names();
            let (pid, calls, in_flight) = (self.life.pid, multiplexer.total, multiplexer.load());
            tracing::info!(%tenant, %server, %session, pid, why = due.key(), calls, in_flight, "child retires: it takes no more calls");
        }
        self.something_is_over();
    }

    /// Whether the child could go though sessions are on it: it has answered `initialize`, nothing is in flight, no
    /// session is subscribed, and no holder of a lease has a message for the child.
    pub(super) fn is_dispensable(&self) -> bool {
        // The holders before the tables: a holder asks about the tables under its own lock.
        let is_awaited = || self.holders.all().iter().any(|holder| holder.needs_child());
        self.is_alive()
            && !self.is_retired()
            && self.is_opened()
            && !is_awaited()
            && self.multiplexer.lock().is_unused()
    }

    /// Lets an idle child take no more calls, if the child is still dispensable, and so end at once. A message that comes
    /// later goes to the next child of its session. Returns whether the child goes.
    pub(super) fn give_up_idle(&self, due: Due) -> bool {
        if !self.is_dispensable() {
            return false;
        }
        let multiplexer = self.multiplexer.lock();
        // A call may have come since.
        let is_unused = multiplexer.is_unused() && !self.is_retired();
        if is_unused {
            self.retire(&multiplexer, due);
        }
        is_unused
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
            let _ = self.signals.stop.set(());
        }
        for (id, holder) in ready.into_iter().filter_map(|id| Some((id, self.holders.get(id)?))) {
            self.detach(id);
            holder.let_go();
        }
    }
}
