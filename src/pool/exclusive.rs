//! Exclusive workers: one lease each. A start goes on though its client has hung up: a cold one may take minutes (`npx`
//! downloads the server first), the client comes back, and takes over the start as far as it has come.
//!
//! Invariant: a child that has heard a client's `initialize` is for that principal, and for an equal `initialize`,
//! only.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::child::PooledWorker;
use super::pool::Pool;
use super::start::{SpawnRequest, obtain, open, settle_unopened};
use super::starts::Start;
use super::wanted::{Granted, Wanted};
use crate::permits::Claimant;
use crate::process::Owner;
use crate::telemetry::Cause;
use crate::worker::{DropGuard, Failure, Lease, Nobody, Opening};

/// Starts of one principal that may go on without a waiting client.
const ABANDONED: usize = 8;

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
                principal: wanted.principal.clone(),
                claimant: Claimant::of(&wanted.principal),
                owner: Owner::principal(&wanted.principal),
                caller: Arc::clone(&wanted.caller),
                is_restart: wanted.is_restart,
                replaces: PooledWorker::replaced_by(&wanted.replaces),
            };
            let child = obtain(pool, &request, opening.as_ref().map(|own| &own.key)).await?;
            let lease = Lease::new(child.worker.clone(), wanted.holder.clone(), true);
            let lease = Arc::new(lease.holding(Arc::<PooledWorker>::clone(&child)));
            child.note_leased();
            let Some(opening) = opening else {
                settle_unopened(pool, child);
                return Ok(Granted { lease, answer: None });
            };
            if let Some(answer) = child.worker.opened() {
                return Ok(Granted { lease, answer: Some(answer.clone()) });
            }
            let (outcome, left) = (watch::channel(None).0, Mutex::default());
            begin(pool, child, Start { principal: wanted.principal.clone(), opening, lease, outcome, left })
        }
    };
    // A client that has had its answer to `initialize` does not send another.
    answer(pool, &start, !wanted.is_restart).await
}

/// Sends `initialize` to a child in a task of its own, which goes on when the client hangs up.
fn begin(pool: &Pool, child: Arc<PooledWorker>, start: Start) -> Arc<Start> {
    let start = Arc::new(start);
    pool.inventory.lock().starts.0.push(Arc::clone(&start));
    let own = Arc::clone(&start);
    pool.spawn(async move |pool| {
        let answer = open(&pool, &child, &own.lease, &own.opening.message).await;
        own.outcome.send_replace(Some(answer));
        let mut left = own.left.lock();
        *left = left.map(|_| Instant::now());
    });
    start
}

/// Waits for the answer to `initialize`. If the client hangs up before the answer, the start is left to go on (when the
/// client `may_come_back` with the same `initialize`), or given up.
async fn answer(pool: &Pool, start: &Arc<Start>, may_come_back: bool) -> Result<Granted, Failure> {
    let mut outcome = start.outcome.subscribe();
    let hung_up = DropGuard::new(|| leave(pool, start, may_come_back));
    let answer = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
    hung_up.disarm();
    pool.inventory.lock().starts.remove(start);
    let answer = answer.unwrap_or_else(|| Err(pool.stopped()))?;
    Ok(Granted { lease: Arc::clone(&start.lease), answer: Some(answer) })
}

/// Lets a start go on without a waiting client, or gives the start up: in a drain, or beyond [`ABANDONED`] starts.
fn leave(pool: &Pool, start: &Arc<Start>, may_come_back: bool) {
    let mut inventory = pool.inventory.lock();
    let (principal, worker) = (&start.principal, start.lease.worker());
    let is_draining = pool.surroundings.draining.is_cancelled();
    if !may_come_back || is_draining || inventory.starts.left_by(principal) >= ABANDONED {
        return inventory.starts.give_up(start);
    }
    start.lease.hand_to(Nobody::holder());
    worker.adopt(principal.tenant(), "-");
    *start.left.lock() = Some(Instant::now());
    if Cause::info("a client hung up before its server was there", pool.server.name.to_string()).is_news(20) {
        tracing::info!(server = %pool.server.name, tenant = %principal.tenant(), pid = worker.pid(), "a client hung up before its server was there: the start goes on");
    }
}
