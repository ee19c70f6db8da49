//! Exclusive workers: one lease each. A start goes on though its client has hung up: a cold one may take minutes (`npx`
//! downloads the server first), the client comes back, and takes over the start as far as it has come.
//!
//! Invariant: a child that has heard a client's `initialize` is for that principal, and for an equal `initialize`, only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Granted, Pool, PooledWorker, SpawnRequest, Wanted};
use crate::auth::Principal;
use crate::config::TenantId;
use crate::process::Owner;
use crate::telemetry::Cause;
use crate::worker::{Failure, Lease, Nobody, Opening};

/// Starts of one principal that may go on without a waiting client.
const ABANDONED: usize = 8;

/// A child that is being asked a client's `initialize`.
pub(super) struct Start {
    principal: Principal,
    opening: Opening,
    child: Arc<PooledWorker>,
    lease: Arc<Lease>,
    /// The answer to `initialize`; `None` until it is there. The waiting client subscribes to this.
    outcome: watch::Sender<Option<Result<Bytes, Failure>>>,
    /// When the last waiting client left, or when `initialize` was answered with no client waiting, whichever is later. `None`
    /// while a client waits.
    left: Mutex<Option<Instant>>,
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

/// The starts of exclusive workers that are under way, or ready with no client waiting.
#[derive(Default)]
pub(super) struct Starts(Vec<Arc<Start>>);

impl Starts {
    /// Takes over a start that a client of this principal with an equal `initialize` has left.
    fn take_over(&self, principal: &Principal, opening: &Opening) -> Option<Arc<Start>> {
        let fits = |start: &&Arc<Start>| {
            start.is_left()
                && start.principal == *principal
                && start.opening.is_like(opening)
                && start.lease.worker().takes_calls()
        };
        let start = self.0.iter().find(fits)?;
        *start.left.lock() = None;
        Some(Arc::clone(start))
    }

    fn remove(&mut self, start: &Arc<Start>) {
        self.0.retain(|other| !Arc::ptr_eq(other, start));
    }

    /// The number of starts that clients of this principal have left.
    fn left_by(&self, principal: &Principal) -> usize {
        self.0.iter().filter(|start| start.is_left() && start.principal == *principal).count()
    }

    /// Stops the start whose client left last, among the tenants that `of` accepts. Returns whether there was one.
    pub(super) fn give_up_last(&mut self, of: impl Fn(&TenantId) -> bool) -> bool {
        let left = self.0.iter().filter(|start| start.is_left() && of(start.principal.tenant()));
        let last = left.max_by_key(|start| *start.left.lock()).cloned();
        last.inspect(|start| self.give_up(start)).is_some()
    }

    /// Stops a start and forgets it. The task that waits for its `initialize` keeps the child until the child has ended.
    fn give_up(&mut self, start: &Arc<Start>) {
        start.lease.worker().stop();
        self.remove(start);
    }

    /// Stops the starts that are over (`Start::is_over`).
    pub(super) fn tidy(&mut self, patience: Duration) {
        let now = Instant::now();
        let ending = self.0.extract_if(.., |start| start.is_over(patience, now));
        ending.for_each(|start| start.lease.worker().stop());
    }

    /// Forgets all starts without stopping them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A client's wait for a start. Dropped before the answer, the start is left to go on, or given up.
struct Awaited<'a> {
    pool: &'a Pool,
    start: Arc<Start>,
    /// Whether a client that hangs up may come back with the same `initialize`.
    may_come_back: bool,
    is_answered: bool,
}

impl Awaited<'_> {
    /// Waits for the answer to `initialize`.
    async fn answer(mut self) -> Result<Granted, Failure> {
        let mut outcome = self.start.outcome.subscribe();
        let stopped = || Failure::stopped(&self.pool.server.name);
        let answer = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        let answer = answer.unwrap_or_else(|| Err(stopped()));
        self.is_answered = true;
        answer.map(|answer| Granted { lease: Arc::clone(&self.start.lease), answer: Some(answer) })
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut inventory = self.pool.inventory.lock();
        if self.is_answered {
            return inventory.starts.remove(&self.start);
        }
        let (principal, worker) = (&self.start.principal, self.start.lease.worker());
        let is_draining = self.pool.surroundings.draining.is_cancelled();
        if !self.may_come_back || is_draining || inventory.starts.left_by(principal) >= ABANDONED {
            return inventory.starts.give_up(&self.start);
        }
        self.start.lease.hand_to(Nobody::holder());
        worker.adopt(principal.tenant(), "-");
        *self.start.left.lock() = Some(Instant::now());
        if !Cause::info("a client hung up before its server was there", self.pool.server.name.to_string()).is_news(20) {
            return;
        }
        tracing::info!(server = %self.pool.server.name, tenant = %principal.tenant(), pid = worker.pid(), "a client hung up before its server was there: the start goes on");
    }
}

/// Leases an exclusive worker: a start that the same client has left, a spare, or a new child.
pub(super) async fn lease(pool: &Pool, wanted: &Wanted) -> Result<Granted, Failure> {
    let opening = wanted.initialize.as_ref().map(Opening::of_client);
    let left = opening.as_ref().and_then(|own| pool.inventory.lock().starts.take_over(&wanted.principal, own));
    let start = match left {
        Some(start) => {
            start.lease.hand_to(wanted.holder.clone());
            start.lease.worker().adopt(wanted.principal.tenant(), &wanted.caller);
            start
        }
        None => {
            let request = SpawnRequest {
                tenant: wanted.principal.tenant().clone(),
                owner: Owner::principal(&wanted.principal),
                caller: Arc::clone(&wanted.caller),
                is_restart: wanted.is_restart,
                replaces: PooledWorker::replaced_by(&wanted.replaces),
            };
            let child = pool.obtain(&request, opening.as_ref().map(|own| &own.fingerprint)).await?;
            let lease = Lease::new(child.worker.clone(), wanted.holder.clone(), true);
            let lease = Arc::new(lease.holding(Arc::<PooledWorker>::clone(&child)));
            let Some(opening) = opening else {
                pool.settle_unopened(child);
                return Ok(Granted { lease, answer: None });
            };
            if let Some(answer) = child.worker.opened() {
                return Ok(Granted { lease, answer: Some(answer.clone()) });
            }
            begin(pool, wanted.principal.clone(), opening, child, lease)
        }
    };
    // A client that has had its answer to `initialize` does not send another.
    Awaited { pool, start, may_come_back: !wanted.is_restart, is_answered: false }.answer().await
}

/// Sends `initialize` to a child in a task of its own, which goes on when the client hangs up.
fn begin(
    pool: &Pool,
    principal: Principal,
    opening: Opening,
    child: Arc<PooledWorker>,
    lease: Arc<Lease>,
) -> Arc<Start> {
    let (outcome, _) = watch::channel(None);
    let start = Arc::new(Start { principal, opening, child, lease, outcome, left: Mutex::default() });
    pool.inventory.lock().starts.0.push(Arc::clone(&start));
    if let Some(this) = pool.this.upgrade() {
        let start = Arc::clone(&start);
        pool.surroundings.tasks.spawn(async move {
            let answer = this.open(&start.child, &start.lease, &start.opening.message).await;
            start.outcome.send_replace(Some(answer));
            let mut left = start.left.lock();
            *left = left.map(|_| Instant::now());
        });
    }
    start
}
