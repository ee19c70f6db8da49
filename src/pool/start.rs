//! How a request gets a child: the circuit breaker permits an attempt, capacity under the ceilings is claimed as a
//! whole, a spare is taken or a child is started, and the end of the child is watched. A shared child that retires or
//! crashes while in use gets a successor, which is started in the same way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::breaker::PermitId;
use super::breaker_permit::BreakerPermit;
use super::child::PooledWorker;
use super::holder::TenantKey;
use super::inventory::{Assigned, Scope, SharedWorker};
use super::pool::Pool;
use super::room::make_room;
use crate::auth::Principal;
use crate::config::Isolation;
use crate::mcp::protocol_version;
use crate::permits::{Ceiling, Claim, Claimant, Limit};
use crate::process::{Lookups, Origin, Owner, hold};
use crate::telemetry::{Cause, ExitReason};
use crate::worker::{CompatibilityKey, DropGuard, Failure, Lease, Nobody, Opening, Payer, Spec};

/// A request for one child.
pub(super) struct SpawnRequest {
    /// The principal who asks. The child counts for its tenant unless all tenants share it.
    pub(super) principal: Principal,
    /// For whom the child counts among the children of the server.
    pub(super) claimant: Claimant,
    /// The owner of the child's working directory.
    pub(super) owner: Owner,
    /// The caller's name for log lines; `-` where several callers share the child.
    pub(super) caller: Arc<str>,
    /// Whether the child replaces one that has ended or is ending.
    pub(super) is_restart: bool,
    /// Children that are being replaced: the new one may inherit the capacity of one.
    pub(super) replaces: Vec<Arc<PooledWorker>>,
}

/// The longest time that a start counts as one under way. A slower start waits for something other than the processors
/// of this machine, such as a download, and others may start meanwhile.
const STARTING: Duration = Duration::from_secs(5);

/// How long a child that hears no `initialize` counts as starting: such a child gives no sign of being up.
const UNOPENED: Duration = Duration::from_secs(1);

/// Gets a child for a request: a spare that fits the compatibility key (`None`: an unopened one), or a new one.
///
/// # Errors
/// The server keeps crashing, there is no capacity in time, or the child cannot be started.
pub(super) async fn obtain(
    pool: &Pool,
    request: &SpawnRequest,
    key: Option<&CompatibilityKey>,
) -> Result<Arc<PooledWorker>, Failure> {
    let owned_by = (pool.server.isolation != Isolation::Shared).then(|| request.principal.tenant());
    let mut permit = BreakerPermit::admitted(pool, owned_by.cloned()).await?;
    let takes_spares = owned_by.is_none_or(|tenant| pool.surroundings.ceilings.takes_spares(tenant));
    // A child that is being replaced and does not read its stdin is waited for twice (`stop` in the supervisor).
    let (queue_timeout, limits) = (pool.server.pool.queue_timeout, &pool.server.limits);
    let until_replaced = queue_timeout.max(2 * limits.stdin_grace + limits.term_grace);
    let end = Instant::now() + if request.replaces.is_empty() { queue_timeout } else { until_replaced };
    loop {
        let mut limits = pool.limits(owned_by);
        // A spare has a place already, and counts as one that is left for those who ask.
        if takes_spares && pool.inventory.lock().place_of_spare(key).is_some() {
            limits.retain(|(ceiling, _)| *ceiling != pool.ceiling());
        }
        let claim = claim(pool, request, &limits, end).await?;
        permit.renew()?;
        let payer = pool.payer(owned_by)?;
        if let Some(spare) = takes_spares.then(|| pool.inventory.lock().take_spare(key)).flatten() {
            if let Some(tenant) = owned_by {
                spare.worker.adopt(tenant, &request.caller);
                spare.worker.charge_to(payer);
            }
            spare.is_for(&request.owner, &request.claimant);
            spare.add(claim);
            permit.adopts(&spare);
            return Ok(spare);
        }
        if claim.holds(&pool.ceiling()) {
            return spawn(pool, Some(request), claim, permit, payer).await;
        }
        // Another request has taken the spare: the next round claims capacity for a new child.
    }
}

/// Claims capacity, and waits for it until the `end`. If the pool is full, something unused is stopped, and a child
/// that is being replaced leaves its capacity to this request.
async fn claim(pool: &Pool, request: &SpawnRequest, limits: &[Limit], end: Instant) -> Result<Claim, Failure> {
    let (before, permits, server) = (Instant::now(), &pool.surroundings.permits, &pool.server.name);
    let claimant = &request.claimant;
    if let Some(full) = permits.full(claimant, limits) {
        make_room(pool, &full, permits.waiting(|waits| *waits == full) + 1);
    }
    let claimed = tokio::select! {
        biased;
        claimed = permits.claim(claimant, limits, end.saturating_duration_since(before)) => claimed,
        claim = PooledWorker::inherit(&request.replaces) => Ok(claim),
    };
    claimed.map_err(|full| Failure::full(server, &full, before.elapsed()))
}

/// Spawns a child that occupies the claimed capacity, and watches over its end. Without a request, the child is a
/// spare. Waits until fewer than `children.spawn_concurrency` starts are under way over all servers.
///
/// # Errors
/// Too many starts are under way for too long, the server keeps crashing, or the process cannot be started.
pub(super) async fn spawn(
    pool: &Pool,
    request: Option<&SpawnRequest>,
    claim: Claim,
    mut permit: BreakerPermit<'_>,
    payer: Payer,
) -> Result<Arc<PooledWorker>, Failure> {
    if request.is_some_and(|request| request.is_restart) {
        pool.metrics.restarts.inc();
    }
    let (server, surroundings) = (&pool.server, &pool.surroundings);
    // Starts are spread even where `pool.queue_timeout` is zero.
    let (before, patience) = (Instant::now(), server.pool.queue_timeout.max(2 * STARTING));
    // Whoever asks has the turn, also where all tenants use the child.
    let claimant = request.map_or_else(Claimant::nobody, |request| Claimant::of(&request.principal));
    let limits = [(Ceiling::Starts, surroundings.spawn_concurrency)];
    let slot = surroundings.permits.claim(&claimant, &limits, patience).await;
    let slot = slot.map_err(|full| Failure::full(&server.name, &full, before.elapsed()))?;
    permit.renew()?;
    let spec = Spec {
        guardian: surroundings.guardian.clone(),
        server: Arc::clone(server),
        reach: Arc::clone(&pool.reach),
        lookups: Lookups::new(&surroundings.permits, &server.name, claimant),
        origin: match request.filter(|_| server.isolation != Isolation::Shared) {
            Some(request) => Origin::new(request.principal.tenant(), &server.name, &request.caller),
            None => Origin::unowned(&server.name),
        },
        owner: request.map_or_else(Owner::everybody, |request| request.owner.clone()),
        payer,
        ceilings: surroundings.ceilings.clone(),
        slow_client_timeout: surroundings.slow_client_timeout,
        metrics: pool.metrics.clone(),
        tasks: surroundings.tasks.clone(),
        kill: surroundings.kill.clone(),
    };
    let end = Instant::now() + STARTING;
    let (slot, spawned) = hold(slot, STARTING, crate::worker::spawn(spec)).await;
    let worker = match spawned {
        Ok(worker) => worker,
        Err(error) => {
            permit.fails();
            let failure = Failure::spawn(&server.name, &error);
            if Cause::new("a child could not be started", server.name.to_string()).is_news(20) {
                tracing::warn!(server = %server.name, "{}", failure.message());
            }
            return Err(failure);
        }
    };
    let child = PooledWorker::new(worker, permit.into_id(), claim);
    request.into_iter().for_each(|request| child.is_for(&request.owner, &request.claimant));
    pool.inventory.lock().children.push(Arc::clone(&child));
    surroundings.children.add(&child);
    if surroundings.draining.is_cancelled() {
        child.worker.stop();
    }
    let watched = Arc::clone(&child);
    pool.spawn(async move |pool| watch(&pool, watched, slot, end).await);
    Ok(child)
}

/// Sends `initialize` to a child, and tells the breaker whether the answer has a protocol version. An answer that is an
/// error is returned like any other.
///
/// # Errors
/// The child ends, or does not answer within `limits.start_timeout`.
pub(super) async fn open(pool: &Pool, child: &PooledWorker, lease: &Lease, message: &[u8]) -> Result<Bytes, Failure> {
    let answer = lease.open(message).await?;
    pool.breaker.settled(&child.worker.tenant(), *child.permit.lock(), protocol_version(&answer).is_some());
    Ok(answer)
}

/// Counts a child that hears no `initialize` as started after [`UNOPENED`], in a task of its own.
pub(super) fn settle_unopened(pool: &Pool, child: Arc<PooledWorker>) {
    let (tenant, permit) = (child.worker.tenant(), *child.permit.lock());
    pool.spawn(async move |pool| until_settled(&pool, &child, &tenant, permit).await);
}

/// Waits until the child has answered `initialize`, has ended, or has been up for [`UNOPENED`], and then tells the
/// breaker whether the child takes calls.
pub(super) async fn until_settled(pool: &Pool, child: &PooledWorker, tenant: &TenantKey, permit: PermitId) {
    let worker = &child.worker;
    tokio::select! {
        () = worker.settled() => {}
        _ = worker.ended() => {}
        () = sleep(UNOPENED) => worker.settle(),
    }
    pool.breaker.settled(tenant, permit, worker.takes_calls());
}

/// Follows a child to its end: gives the start slot back at `end` at the latest, starts a successor for a shared child
/// that is retired or has crashed in use, tells the breaker how the child ended, and frees its capacity.
async fn watch(pool: &Pool, child: Arc<PooledWorker>, slot: Option<Claim>, end: Instant) {
    let worker = &child.worker;
    // Until the child has answered `initialize`, its start counts as under way.
    if slot.is_some() {
        tokio::select! {
            () = worker.settled() => {}
            _ = worker.ended() => {}
            () = sleep_until(end) => {}
        }
        drop(slot);
    }
    tokio::select! {
        biased;
        // Sessions on an idle child that goes need no other until they say so.
        () = worker.retired() => if !worker.is_given_up_as_idle() { succeed(pool, &child) },
        _ = worker.ended() => {}
    }
    let reason = worker.ended().await;
    pool.inventory.lock().forget(&child);
    pool.surroundings.children.remove(&child);
    let (tenant, permit) = (worker.tenant(), *child.permit.lock());
    pool.breaker.ended(&tenant, worker.answered());
    match reason.is_crash() {
        true => pool.crashed(&tenant, permit),
        false => pool.breaker.settled(&tenant, permit, false),
    }
    // The successor of a child that has served inherits its capacity, before requests that have had no child yet.
    let is_missed = reason != ExitReason::Stopped && worker.answered() > 0;
    if is_missed {
        succeed(pool, &child);
    }
    pool.inventory.lock().dismiss(&child);
    // What an idle child occupied is for those who wait, and not for its sessions.
    child.vacate((!worker.is_retired() || worker.is_given_up_as_idle()) && !is_missed);
    drop(child);
    pool.changed.notify_one();
}

/// Assigns the least loaded fitting shared worker, and starts one more first if the pool has fewer than its replicas.
pub(super) fn assign(
    pool: &Pool,
    scope: &Scope,
    opening: Option<&Opening>,
    principal: &Principal,
    is_restart: bool,
) -> Assigned {
    let key = opening.map(|own| &own.key);
    let replicas = if *scope == Scope::Everybody { pool.server.pool.replicas } else { 1 };
    let (assigned, replaces) = {
        let mut inventory = pool.inventory.lock();
        if let Some(assigned) = inventory.least_loaded(scope, key, replicas) {
            return assigned;
        }
        let replaces = inventory.replaced(scope, key);
        (inventory.add(scope.clone(), opening.cloned(), principal), replaces)
    };
    let owner = match scope {
        Scope::Principal(principal) => Owner::principal(principal),
        Scope::Tenant(tenant) => Owner::tenant(tenant),
        Scope::Everybody => Owner::everybody(),
    };
    let (principal, claimant) = (principal.clone(), assigned.shared.claimant());
    let request = SpawnRequest { principal, claimant, owner, caller: "-".into(), is_restart, replaces };
    start_in_background(pool, Arc::clone(&assigned.shared), request);
    assigned
}

/// Starts a successor for a shared worker that takes no more calls or has ended, if it has leases.
fn succeed(pool: &Pool, child: &Arc<PooledWorker>) {
    let shared = pool.inventory.lock().shared_of(child);
    if let Some(shared) = shared
        && child.worker.is_in_use()
        && !pool.surroundings.draining.is_cancelled()
    {
        drop(assign(pool, &shared.scope, shared.opening.as_ref(), &shared.principal, true));
    }
}

/// Starts a shared worker in a task of its own, which goes on when the first client hangs up.
fn start_in_background(pool: &Pool, shared: Arc<SharedWorker>, request: SpawnRequest) {
    pool.spawn(async move |pool| {
        // Whoever waits for the child holds the sender of the outcome, too: a panic has to be told.
        let panicked = DropGuard::new(|| {
            pool.inventory.lock().remove(&shared);
            shared.outcome.send_replace(Some(Err(Failure::internal(&pool.server.name))));
        });
        let started = start_shared(&pool, &request, shared.opening.as_ref());
        let outcome = pool.surroundings.draining.run_until_cancelled(started).await;
        let outcome = outcome.unwrap_or_else(|| Err(pool.stopped()));
        panicked.disarm();
        if outcome.is_err() {
            pool.inventory.lock().remove(&shared);
        }
        shared.outcome.send_replace(Some(outcome));
        // A child that ended before it was entered here has not been dismissed by its watch.
        if shared.child().is_some_and(|child| child.worker.has_ended()) {
            pool.inventory.lock().remove(&shared);
        }
    });
}

/// Gets a child, and opens it with the gateway's own `initialize` unless it is a spare that is open already.
async fn start_shared(
    pool: &Pool,
    request: &SpawnRequest,
    opening: Option<&Opening>,
) -> Result<Arc<PooledWorker>, Failure> {
    let child = obtain(pool, request, opening.map(|own| &own.key)).await?;
    let Some(opening) = opening else {
        settle_unopened(pool, Arc::clone(&child));
        return Ok(child);
    };
    let worker = &child.worker;
    if worker.opened().is_none() {
        // Opened under a lease without a holder: what the child says meanwhile is for no session.
        let lease = Lease::new(worker.clone(), Nobody::holder(), false);
        let answer = open(pool, &child, &lease, &opening.message).await?;
        if worker.opened().is_none() {
            worker.stop();
            return Err(Failure::refused_by_server(&pool.server.name, &answer));
        }
    }
    worker.say_initialized();
    Ok(child)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::{Config, Server, TenantId};
    use crate::permits::{By, Full};
    use crate::pool::{Deployments, Pools};

    #[tokio::test]
    async fn a_later_limit_of_a_tenant_counts_the_children_that_run_already() {
        let (pools, tenant) = (Pools::of_nobody(), TenantId::fallback());
        let server = Server::new("s".parse().unwrap(), "nothing", Vec::new());
        let mut config = Config::for_servers([server]);
        let deployed = pools.deploy(&config, &Deployments::default());
        let pool = &deployed.values().next().unwrap().pool;
        let permits = &pool.surroundings.permits;
        let ann = Claimant::of(&Principal::of_key(tenant.as_str(), "ann"));
        let running = permits.try_claim(&ann, &pool.limits(Some(&tenant))).unwrap();
        config.tenants.get_mut(&tenant).unwrap().max_children = Some(1);
        pools.deploy(&config, &deployed);
        let limits = pool.limits(Some(&tenant));
        let full = Full { ceiling: Ceiling::Tenant(tenant), most: 1, by: By::All };
        assert_eq!(permits.full(&ann, &limits), Some(full));
        drop(running);
        assert!(permits.try_claim(&ann, &limits).is_ok());
    }
}
