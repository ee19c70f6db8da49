//! Another child in the place of one that is gone, though no message waits for it: so that the next call does not wait, and
//! a client that only listens goes on to hear.
//!
//! Invariant: after a child that was of no use, another is started unasked only where a client listens, and after a pause.

use std::time::Duration;

use tokio::time::sleep;

use super::acquire::Slot;
use super::handshake::Handshake;
use crate::pool::backoff;
use crate::session::session::{Session, State};
use crate::worker::DropGuard;

impl Session {
    /// The child is gone, or one before it.
    pub(in crate::session) fn child_exited(&self) {
        let has_room = {
            let state = self.state.lock();
            // There was no room for another: there is now, and it is this session's.
            let has_room = matches!(state.slot, Slot::Empty) && !state.before.leaving().is_empty();
            has_room && matches!(state.handshake, Handshake::Done(_)) && !self.ended.is_cancelled()
        };
        if let Some(this) = self.this.upgrade().filter(|_| has_room) {
            self.surroundings.tasks.spawn(async move {
                // If it fails, the next call says why.
                let _ = this.lease().await;
            });
        } else if !self.see_to_child() {
            self.forget_over();
        }
    }

    /// Gets another child, if there is none and there should be one, in the background. Says whether that has begun.
    pub(in crate::session) fn see_to_child(&self) -> bool {
        let begins = {
            let mut state = self.state.lock();
            !state.is_reviving && self.next_try(&mut state).is_some()
        };
        if let Some(this) = self.this.upgrade().filter(|_| begins) {
            self.surroundings.tasks.spawn(async move {
                // Another may try, should this one fail.
                let guard = DropGuard::new(|| this.state.lock().is_reviving = false);
                this.revive().await;
                guard.disarm();
            });
        }
        begins
    }

    async fn revive(&self) {
        let mut retry = Duration::ZERO;
        loop {
            let Some(pause) = self.next_try(&mut self.state.lock()) else { return };
            tokio::select! {
                () = sleep(pause.max(retry)) => {}
                () = self.ended.cancelled() => {}
            }
            // If it fails, the next call says why.
            retry = self.lease().await.err().and_then(|failure| failure.retry_after()).unwrap_or_default();
        }
    }

    /// The pause before the next try; `None` if there is a child, or nobody would miss it.
    ///
    /// The pause is the session's own, besides that of the circuit breaker: that others are answered, whose sessions are
    /// well, says nothing of this one.
    fn next_try(&self, state: &mut State) -> Option<Duration> {
        let in_vain = in_vain(&state.slot, state.in_vain);
        let is_gone = match &state.slot {
            Slot::Live(lease) => !lease.is_alive(),
            Slot::Empty => true,
            Slot::Starting(_) => false,
        };
        let is_missed = match &state.handshake {
            Handshake::Done(done) => {
                let has_subscriptions = match &state.slot {
                    Slot::Live(lease) => lease.has_subscriptions(),
                    Slot::Starting(_) | Slot::Empty => done.terms.has_subscriptions(),
                };
                in_vain == 0 || has_subscriptions || state.streams.current().is_some()
            }
            Handshake::None | Handshake::Initializing => false,
        };
        state.is_reviving = is_gone && is_missed && !self.ended.is_cancelled();
        state.is_reviving.then(|| backoff(&self.server.restart, in_vain + 1))
    }
}

/// Children in a row that were of no use to the client, the one in the slot included, if it is gone.
pub(in crate::session) fn in_vain(slot: &Slot, before: usize) -> usize {
    match slot {
        Slot::Live(lease) if lease.worker().was_of_use() => 0,
        Slot::Live(_) => before.saturating_add(1),
        Slot::Empty | Slot::Starting(_) => before,
    }
}
