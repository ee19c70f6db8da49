//! A link's children: how the link gets one, drains the queue into it, and replaces it after its exit.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::sleep;

use super::acquire::{acquire, outcome};
use super::link::Link;
use super::queue::DrainToken;
use super::slot::{Outcome, Slot, Starting};
use super::state::State;
use crate::memory::Account;
use crate::stream::Item;
use crate::worker::{DropGuard, Failure, InFlight, Lease, LeaseHolder, Orphan, Refused, Route, Unsolicited};

impl Link {
    /// Spawns the task that drains the queue, if messages are queued and no such task runs.
    pub(super) fn begin_drain(&self) {
        let token = self.context.state.lock().queue.claim();
        if let Some(token) = token {
            self.spawn(async move |this| this.drain_queue(token).await);
        }
    }

    /// Sends the queued messages in their order, until none is queued. If no child starts, all queued messages fail:
    /// one start is attempted for all of them.
    pub(super) async fn drain_queue(&self, mut token: DrainToken) {
        let guard = DropGuard::new(|| self.abandon());
        let mut was_tried = false;
        loop {
            let Some((again, ..)) = self.context.state.lock().queue.first(token) else { break };
            token = again;
            match self.context.failing_overdue(self.lease()).await {
                Ok(lease) => {
                    let Some(again) = self.context.send_queued(&lease, token).await else { break };
                    token = again;
                    was_tried = false;
                }
                // The child exited right after its start. One more try, not one for each child of a server that always
                // exits.
                Err(failure) if failure.is_ended() && !was_tried => was_tried = true,
                Err(failure) => {
                    let queued = self.context.state.lock().queue.take_all();
                    self.context.fail(&queued, &failure);
                }
            }
        }
        guard.disarm();
    }

    /// A lease on a child that takes calls. If there is none, one start is begun, and awaited by all who call this
    /// meanwhile.
    async fn lease(&self) -> Result<Arc<Lease>, Failure> {
        let (starting, finished) = {
            let mut state = self.context.state.lock();
            let state = &mut *state;
            if self.context.ended.is_cancelled() {
                return Err(self.context.stopped());
            }
            match (&state.slot, state.handshake.done()) {
                (Slot::Leased(lease), _) if lease.worker().takes_calls() => return Ok(Arc::clone(lease)),
                (Slot::Starting(starting), _) => (starting.clone(), Vec::new()),
                (_, Some(done)) => {
                    let initialize = done.initialize.clone();
                    state.drain_current();
                    let starting = self.start(initialize, state.leaving());
                    state.slot = Slot::Starting(starting.clone());
                    // Only children that can deliver nothing more: to leave one that is still exiting would fail its
                    // calls as those of an ended session.
                    (starting, state.take_finished())
                }
                // The first start has failed, and the client has to send `initialize` again.
                (_, None) => return Err(Failure::refused(Refused::Ended)),
            }
        };
        drop(finished);
        outcome(&self.context, starting).await.map(|(lease, _)| lease)
    }

    /// Spawns a start with the client's `initialize`. The child may inherit the capacity of one of those that it
    /// `replaces`.
    pub(super) fn start(&self, initialize: Bytes, replaces: Vec<Arc<Lease>>) -> Starting {
        let (result, starting) = watch::channel(None);
        let holder: Weak<dyn LeaseHolder> = self.this.clone();
        self.spawn(async move |this| {
            let guard = DropGuard::new(|| {
                let failed = Err(Failure::internal(&this.context.server().name));
                this.finish_start(&failed);
                result.send_replace(Some(failed));
            });
            let acquired = acquire(&this.context, holder, initialize, replaces);
            let acquired = this.context.unless_ended(acquired).await;
            guard.disarm();
            this.finish_start(&acquired);
            result.send_replace(Some(acquired));
            // The child may have exited before it was the current one, or may not have started.
            this.restart_if_missed();
        });
        starting
    }

    /// Notes the outcome of a start in the state. If it succeeded, the replaced children are left as soon as they are
    /// idle.
    fn finish_start(&self, started: &Outcome) {
        let draining = {
            let mut state = self.context.state.lock();
            state.finish_start(started, self.context.ended.is_cancelled())
        };
        draining.iter().for_each(|lease| lease.leave_when_idle());
    }

    /// The pause before an unasked restart, and the note in the state that one is under way; `None` if none is needed.
    fn next_restart(&self, state: &mut State) -> Option<Duration> {
        let is_listening = || self.context.client.is_listening();
        let pause = state.pause_before_restart(is_listening, &self.context.server().restart);
        let pause = pause.filter(|_| !self.context.ended.is_cancelled());
        state.is_restarting = pause.is_some();
        pause
    }

    /// Begins an unasked restart in the background, if the client would miss the child. Returns whether it did.
    pub(super) fn restart_if_missed(&self) -> bool {
        let begins = {
            let mut state = self.context.state.lock();
            !state.is_restarting && self.next_restart(&mut state).is_some()
        };
        if begins {
            self.spawn(async move |this| {
                let guard = DropGuard::new(|| this.context.state.lock().is_restarting = false);
                this.restart().await;
                guard.disarm();
            });
        }
        begins
    }

    /// Starts children after pauses, until there is one or the client would miss none any more.
    async fn restart(&self) {
        let mut retry_after = Duration::ZERO;
        loop {
            let Some(pause) = self.next_restart(&mut self.context.state.lock()) else { return };
            self.context.ended.run_until_cancelled(sleep(pause.max(retry_after))).await;
            // The next call reports a failure.
            retry_after = self.lease().await.err().and_then(|failure| failure.retry_after()).unwrap_or_default();
        }
    }
}

impl LeaseHolder for Link {
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route {
        self.context.client.route(item, kind, in_flight)
    }

    fn account(&self) -> Option<Account> {
        Some(self.context.target.account.clone())
    }

    fn forget(&self, number: u64) -> bool {
        self.context.client.forget(number)
    }

    fn resend(&self, calls: Vec<Orphan>) -> Vec<Orphan> {
        if self.context.ended.is_cancelled() {
            return calls;
        }
        let server = self.context.server();
        let timeout = |tool: &str| server.call_timeout(Some(tool));
        let refused = self.context.state.lock().queue.push_retries(calls, timeout, &server.limits);
        self.begin_drain();
        refused
    }

    fn let_go(&self) {
        let finished = self.context.state.lock().take_finished();
        drop(finished);
        self.context.drained.notify_one();
    }

    fn needs_child(&self) -> bool {
        self.context.state.lock().needs_child()
    }

    fn exited(&self) {
        let idle = self.context.state.lock().take_idle();
        drop(idle);
        let has_room = {
            let state = self.context.state.lock();
            // A start has failed for want of capacity: the capacity of the exited child is this link's now.
            let has_room = matches!(state.slot, Slot::Empty) && !state.leaving().is_empty();
            has_room && state.handshake.done().is_some() && !self.context.ended.is_cancelled()
        };
        if has_room {
            self.spawn(async move |this| {
                // The next call reports a failure.
                let _ = this.lease().await;
            });
        } else if !self.restart_if_missed() {
            self.let_go();
        }
    }
}
