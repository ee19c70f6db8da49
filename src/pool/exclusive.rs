//! Children that a session has to itself. A start goes on though its client has hung up: a cold one may take minutes (`npx`
//! downloads the server first), the client comes back, and finds it where it is by then.
//!
//! Invariant: such a child has heard the words of one client of one principal, and is for that principal and these words only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Applicant, Granted, Pool, PooledWorker, SpawnRequest};
use crate::auth::Principal;
use crate::config::TenantId;
use crate::process::Owner;
use crate::telemetry::Cause;
use crate::worker::{Failure, Lease, Nobody, Opening};

/// Starts of one principal that go on by themselves.
const MOST: usize = 8;

/// A child on its way to answer a client's `initialize`.
pub(super) struct Start {
    principal: Principal,
    opening: Opening,
    child: Arc<PooledWorker>,
    lease: Arc<Lease>,
    /// The answer, once there is one; whoever is to have the child waits for this.
    outcome: watch::Sender<Option<Result<Bytes, Failure>>>,
    /// Since when its client is gone, or, if that is later, it has answered to nobody. `None` while somebody waits for it.
    left: Mutex<Option<Instant>>,
}

impl Start {
    fn is_left(&self) -> bool {
        self.left.lock().is_some()
    }

    /// Whether it is of no use to anybody, or has been ready for nobody for longer than it may.
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

/// The starts that are under way.
#[derive(Default)]
pub(super) struct Starts(Vec<Arc<Start>>);

impl Starts {
    /// One that this client, or one that is like it in every word, has left behind.
    fn take_up(&self, principal: &Principal, opening: &Opening) -> Option<Arc<Start>> {
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

    fn left_by(&self, principal: &Principal) -> usize {
        self.0.iter().filter(|start| start.is_left() && start.principal == *principal).count()
    }

    /// Ends the one that its client has left last, of those that count for one `of` these. Says whether there was one.
    pub(super) fn give_up_last(&mut self, of: impl Fn(&TenantId) -> bool) -> bool {
        let left = self.0.iter().filter(|start| start.is_left() && of(start.principal.tenant()));
        let last = left.max_by_key(|start| *start.left.lock()).cloned();
        last.inspect(|start| self.give_up(start)).is_some()
    }

    /// Ends one. Whoever opens it has a hold on the child as well, until that has ended.
    fn give_up(&mut self, start: &Arc<Start>) {
        start.lease.worker().stop();
        self.remove(start);
    }

    /// Ends those that are over.
    pub(super) fn tidy(&mut self, patience: Duration) {
        let now = Instant::now();
        let ending = self.0.extract_if(.., |start| start.is_over(patience, now));
        ending.for_each(|start| start.lease.worker().stop());
    }

    /// Forgets them all: their children end in another way.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A session's wait for a start.
struct Awaited<'a> {
    pool: &'a Pool,
    start: Arc<Start>,
    /// Whether the client comes back, if it leaves before there is an answer.
    may_come_back: bool,
    is_answered: bool,
}

impl Awaited<'_> {
    async fn answer(mut self) -> Result<Granted, Failure> {
        let mut outcome = self.start.outcome.subscribe();
        let stopped = || Failure::stopped(&self.pool.server.name);
        let answer = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        let answer = answer.unwrap_or_else(|| Err(stopped()));
        self.is_answered = true;
        answer.map(|answer| Granted { lease: Arc::clone(&self.start.lease), answer })
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
        if !self.may_come_back || is_draining || inventory.starts.left_by(principal) >= MOST {
            return inventory.starts.give_up(&self.start);
        }
        self.start.lease.hand_to(Nobody::peer());
        worker.adopt(principal.tenant(), "-");
        *self.start.left.lock() = Some(Instant::now());
        if !Cause::info("a client hung up before its server was there", self.pool.server.name.to_string()).is_news(20) {
            return;
        }
        tracing::info!(server = %self.pool.server.name, tenant = %principal.tenant(), pid = worker.pid(), "a client hung up before its server was there: the start goes on");
    }
}

impl Pool {
    pub(super) async fn lease_exclusive(&self, applicant: &Applicant) -> Result<Granted, Failure> {
        let opening = Opening::of_client(&applicant.initialize);
        let left = self.inventory.lock().starts.take_up(&applicant.principal, &opening);
        let start = match left {
            Some(start) => {
                start.lease.hand_to(applicant.peer.clone());
                start.lease.worker().adopt(applicant.principal.tenant(), &applicant.session);
                start
            }
            None => {
                let request = SpawnRequest {
                    tenant: applicant.principal.tenant().clone(),
                    owner: Owner::principal(&applicant.principal),
                    session: Arc::clone(&applicant.session),
                    is_replay: applicant.is_replay,
                    replaces: PooledWorker::replaced_by(&applicant.replaces),
                };
                let child = self.obtain(&request, &opening.fingerprint).await?;
                let lease = Lease::new(child.worker.clone(), applicant.peer.clone(), true);
                let held: Arc<PooledWorker> = Arc::clone(&child);
                let lease = Arc::new(lease.holding(held));
                if let Some(answer) = child.worker.opened() {
                    return Ok(Granted { lease, answer: answer.clone() });
                }
                self.begin(applicant.principal.clone(), opening, child, lease)
            }
        };
        // Whoever has had an answer to `initialize` is not coming back with another.
        Awaited { pool: self, start, may_come_back: !applicant.is_replay, is_answered: false }.answer().await
    }

    /// Opens a child off the path of whoever asked for it.
    fn begin(&self, principal: Principal, opening: Opening, child: Arc<PooledWorker>, lease: Arc<Lease>) -> Arc<Start> {
        let (outcome, _) = watch::channel(None);
        let start = Arc::new(Start { principal, opening, child, lease, outcome, left: Mutex::default() });
        self.inventory.lock().starts.0.push(Arc::clone(&start));
        if let Some(this) = self.this.upgrade() {
            let start = Arc::clone(&start);
            self.surroundings.tasks.spawn(async move {
                let answer = this.open(&start.child, &start.lease, &start.opening.message).await;
                start.outcome.send_replace(Some(answer));
                let mut left = start.left.lock();
                *left = left.map(|_| Instant::now());
            });
        }
        start
    }
}
