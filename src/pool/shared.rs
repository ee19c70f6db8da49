//! Shared workers: several leases each. Requests are spread over the replicas, and a worker that retires or crashes while in
//! use gets one successor for all its leases.

use std::sync::Arc;

use super::inventory::{Assigned, Scope, SharedWorker};
use super::{Granted, Pool, PooledWorker, SpawnRequest, Wanted};
use crate::config::{Isolation, TenantId};
use crate::process::Owner;
use crate::worker::{Failure, Lease, Nobody, Opening};

/// Leases a shared worker: the least busy one that fits, or a new one.
pub(super) async fn lease(pool: &Pool, wanted: &Wanted) -> Result<Granted, Failure> {
    let opening = wanted.initialize.as_ref().map(|initialize| Opening::of_gateway(initialize, true));
    let key = opening.as_ref().map(|own| &own.fingerprint);
    let scope = pool.scope(&wanted.principal);
    loop {
        let mut assigned = assign(pool, &scope, opening.as_ref(), wanted.principal.tenant(), wanted.is_restart);
        let stopped = || Failure::stopped(&pool.server.name);
        let mut outcome = assigned.opened().await.ok_or_else(stopped)?;
        if let Err(failure) = outcome {
            // Where the start has failed, another replica that is up serves instead.
            let other = pool.inventory.lock().least_busy_of_opened(&scope, key);
            assigned = other.ok_or(failure)?;
            outcome = assigned.opened().await.ok_or_else(stopped)?;
        }
        let child = outcome?;
        let lease = {
            // Under the lock, so that the request is counted either as assigned or as a lease.
            let _inventory = pool.inventory.lock();
            let lease = Arc::new(Lease::new(child.worker.clone(), wanted.holder.clone(), false));
            drop(assigned);
            lease
        };
        // The worker may have been retired between the choice and the lease: then another one is chosen.
        let answer = child.worker.opened().cloned().filter(|_| opening.is_some());
        if child.worker.takes_calls() && answer.is_some() == opening.is_some() {
            return Ok(Granted { lease, answer });
        }
    }
}

/// The number of workers that leases of one scope are spread over.
fn replicas(pool: &Pool) -> usize {
    if pool.server.isolation == Isolation::Shared { pool.server.pool.replicas } else { 1 }
}

/// Assigns the least busy fitting worker, and starts one more first if there are fewer than the replicas.
fn assign(pool: &Pool, scope: &Scope, opening: Option<&Opening>, tenant: &TenantId, is_restart: bool) -> Assigned {
    let key = opening.map(|own| &own.fingerprint);
    let (assigned, replaces) = {
        let mut inventory = pool.inventory.lock();
        if let Some(assigned) = inventory.least_busy(scope, key, replicas(pool)) {
            return assigned;
        }
        let replaces = inventory.replaced(scope, key);
        (inventory.add(scope.clone(), opening.cloned(), tenant.clone()), replaces)
    };
    let owner = match scope {
        Scope::Principal(principal) => Owner::principal(principal),
        Scope::Tenant(tenant) => Owner::tenant(tenant),
        Scope::Exclusive | Scope::Everybody => Owner::everybody(),
    };
    let request = SpawnRequest { tenant: tenant.clone(), owner, caller: "-".into(), is_restart, replaces };
    start_in_background(pool, assigned.shared(), request);
    assigned
}

/// Starts a successor for a shared worker that takes no more calls or has ended, if it has leases.
pub(super) fn succeed(pool: &Pool, child: &Arc<PooledWorker>) {
    let shared = pool.inventory.lock().shared_of(child);
    if let Some(shared) = shared
        && child.worker.is_in_use()
        && !pool.surroundings.draining.is_cancelled()
    {
        drop(assign(pool, &shared.scope, shared.opening.as_ref(), &shared.tenant, true));
    }
}

/// Starts a shared worker in a task of its own, which goes on when the first client hangs up.
fn start_in_background(pool: &Pool, shared: &Arc<SharedWorker>, request: SpawnRequest) {
    let Some(this) = pool.this.upgrade() else { return };
    let shared = Arc::clone(shared);
    pool.surroundings.tasks.spawn(async move {
        let started = start_shared(&this, &request, shared.opening.as_ref());
        let outcome = this.surroundings.draining.run_until_cancelled(started).await;
        let outcome = outcome.unwrap_or_else(|| Err(Failure::stopped(&this.server.name)));
        if outcome.is_err() {
            this.inventory.lock().remove(&shared);
        }
        shared.outcome.send_replace(Some(outcome));
        // A child that ended before it was entered here has not been dismissed by its watch.
        if shared.child().is_some_and(|child| child.worker.has_ended()) {
            this.inventory.lock().remove(&shared);
        }
    });
}

/// Gets a child, and opens it with the gateway's own `initialize` unless it is a spare that is open already.
async fn start_shared(
    pool: &Pool,
    request: &SpawnRequest,
    opening: Option<&Opening>,
) -> Result<Arc<PooledWorker>, Failure> {
    let child = pool.obtain(request, opening.map(|own| &own.fingerprint)).await?;
    let Some(opening) = opening else {
        pool.settle_unopened(Arc::clone(&child));
        return Ok(child);
    };
    let worker = &child.worker;
    if worker.opened().is_none() {
        // Opened under a lease without a holder: what the child says meanwhile is for no session.
        let lease = Lease::new(worker.clone(), Nobody::holder(), false);
        let answer = pool.open(&child, &lease, &opening.message).await?;
        if worker.opened().is_none() {
            worker.stop();
            return Err(Failure::refused_by_server(&pool.server.name, &answer));
        }
    }
    worker.say_initialized();
    Ok(child)
}
