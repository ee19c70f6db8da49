//! The starts of exclusive workers whose `initialize` is not answered yet, and those that are ready but whose client
//! has left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::auth::Principal;
use crate::worker::{Failure, Lease, Opening};

/// An exclusive child that is being asked a client's `initialize`.
pub(super) struct Start {
    pub(super) principal: Principal,
    pub(super) opening: Opening,
    pub(super) lease: Arc<Lease>,
    /// The answer to `initialize`; `None` while there is none. The waiting client subscribes to this.
    pub(super) outcome: watch::Sender<Option<Result<Bytes, Failure>>>,
    /// When the last waiting client left, or when `initialize` was answered with no client waiting, whichever is later.
    /// `None` while a client waits.
    pub(super) left: Mutex<Option<Instant>>,
}

impl Start {
    /// Whether no client waits for this start.
    fn is_left(&self) -> bool {
        self.left.lock().is_some()
    }

    /// Whether no client waits for this start, and it has failed or has been ready for as long as `patience`.
    fn is_over(&self, patience: Duration, now: Instant) -> bool {
        let Some(left) = *self.left.lock() else { return false };
        let worker = self.lease.worker();
        match &*self.outcome.borrow() {
            Some(Ok(_)) => worker.opened().is_none() || !worker.takes_calls() || now.duration_since(left) >= patience,
            Some(Err(_)) => true,
            None => false,
        }
    }
}

/// The starts of one pool.
#[derive(Default)]
pub(super) struct Starts(pub(super) Vec<Arc<Start>>);

impl Starts {
    /// Takes over a start that a client of this principal with an equal `initialize` has left. `None` if there is none.
    pub(super) fn take_over(&self, principal: &Principal, opening: &Opening) -> Option<Arc<Start>> {
        let fits = |start: &&Arc<Start>| {
            start.is_left()
                && start.principal == *principal
                && start.opening.is_like(opening)
                && start.lease.worker().takes_calls()
        };
        self.0.iter().find(fits).inspect(|start| *start.left.lock() = None).cloned()
    }

    /// Removes a start without stopping its child.
    pub(super) fn remove(&mut self, start: &Arc<Start>) {
        self.0.retain(|other| !Arc::ptr_eq(other, start));
    }

    /// The number of starts that clients of this principal have left.
    pub(super) fn left_by(&self, principal: &Principal) -> usize {
        self.0.iter().filter(|start| start.is_left() && start.principal == *principal).count()
    }

    /// Stops the start whose client left last, of a principal that `of` accepts. Returns whether there was one.
    pub(super) fn give_up_last(&mut self, of: impl Fn(&Principal) -> bool) -> bool {
        let left = self.0.iter().filter(|start| start.is_left() && of(&start.principal));
        let last = left.max_by_key(|start| *start.left.lock()).cloned();
        last.inspect(|start| self.give_up(start)).is_some()
    }

    /// Stops and removes a start. The task that waits for its `initialize` keeps the child until the child has ended.
    pub(super) fn give_up(&mut self, start: &Arc<Start>) {
        start.lease.worker().stop();
        self.remove(start);
    }

    /// Stops and removes the starts without a waiting client that have failed or have been ready for as long as
    /// `patience`.
    pub(super) fn tidy(&mut self, patience: Duration) {
        let now = Instant::now();
        let ending = self.0.extract_if(.., |start| start.is_over(patience, now));
        ending.for_each(|start| start.lease.worker().stop());
    }
}
