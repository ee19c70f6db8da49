//! How a request gets a child: the circuit breaker permits an attempt, capacity under the ceilings is claimed as a whole, a
//! spare is taken or a child is started, and the end of the child is watched.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::breaker::PermitId;
use super::breaker_permit::BreakerPermit;
use super::permits::{Ceiling, Claim, Full, Limit, TenantKey};
use super::shared::succeed;
use super::{Pool, PooledWorker};
use crate::config::{Isolation, TenantId};
use crate::process::{Origin, Owner, hold};
use crate::telemetry::{Cause, ExitReason};
use crate::worker::{Failure, Fingerprint, Spec, spawn};

/// A request for one child.
pub(super) struct SpawnRequest {
    /// The tenant that asks, and that the child counts for unless all tenants share it.
    pub(super) tenant: TenantId,
    /// The owner of the child's working directory.
    pub(super) owner: Owner,
    /// The caller's name for log lines; `-` where several callers share the child.
    pub(super) caller: Arc<str>,
    /// Whether the child replaces one that has ended or is ending.
    pub(super) is_restart: bool,
    /// Children that are being replaced: the new one may inherit the capacity of one.
    pub(super) replaces: Vec<Arc<PooledWorker>>,
}

/// The longest time that a start counts as one under way. A slower start waits for something other than the processors of
/// this machine, such as a download, and others may start meanwhile.
const STARTING: Duration = Duration::from_secs(5);

/// How long a child that hears no `initialize` counts as starting: it gives no sign of being up.
const UNOPENED: Duration = Duration::from_secs(1);

impl Pool {
    /// Gets a child for a request: a spare that fits the compatibility key (`None`: an unopened one), or a new one.
    ///
    /// # Errors
    /// The server keeps crashing, there is no capacity in time, or the child cannot be started.
    pub(super) async fn obtain(
        &self,
        request: &SpawnRequest,
        key: Option<&Fingerprint>,
    ) -> Result<Arc<PooledWorker>, Failure> {
        let owned_by = (self.server.isolation != Isolation::Shared).then_some(&request.tenant);
        let mut permit = BreakerPermit::admitted(self, owned_by.cloned()).await?;
        let takes_spares = owned_by.is_none_or(|tenant| self.surroundings.ceilings.takes_spares(tenant));
        let end = Instant::now() + self.patience(request);
        loop {
            let mut limits = self.limits(owned_by);
            // A spare has capacity under the ceiling of the pool already.
            if takes_spares && self.inventory.lock().has_spare(key) {
                limits.retain(|(ceiling, _)| *ceiling != self.ceiling());
            }
            let claim = self.claim(request, &limits, end).await?;
            permit.renew()?;
            if let Some(spare) = takes_spares.then(|| self.inventory.lock().take_spare(key)).flatten() {
                if let Some(tenant) = owned_by {
                    spare.worker.adopt(tenant, &request.caller);
                }
                spare.add(claim);
                permit.adopts(&spare);
                return Ok(spare);
            }
            if claim.holds(&self.ceiling()) {
                return self.start(request, claim, permit).await;
            }
            // Another request has taken the spare: the next round claims capacity for a new child.
        }
    }

    /// The ceiling over the children of this server.
    pub(super) fn ceiling(&self) -> Ceiling {
        Ceiling::Server(self.server.name.clone())
    }

    /// The ceilings that one more child counts under, for a tenant or for none. A tenant without a limit has its children
    /// counted as well: a limit of a later configuration holds for those that run by then.
    pub(super) fn limits(&self, tenant: Option<&TenantId>) -> Vec<Limit> {
        let of_tenant = |tenant: &TenantId| {
            let most = self.surroundings.ceilings.max_children(tenant).unwrap_or(usize::MAX);
            (Ceiling::Tenant(tenant.clone()), most)
        };
        let of_pool = (self.ceiling(), self.server.pool.max_children);
        tenant.map(of_tenant).into_iter().chain([of_pool]).collect()
    }

    /// Claims capacity until the `end`. If the pool is full, something unused is stopped, and a child that is being replaced
    /// leaves its capacity to this request.
    async fn claim(&self, request: &SpawnRequest, limits: &[Limit], end: Instant) -> Result<Claim, Failure> {
        let (before, permits) = (Instant::now(), &self.surroundings.permits);
        if permits.full(limits).is_some_and(|full| full.0 == self.ceiling()) {
            self.inventory.lock().make_room(permits.waiting_for(&self.ceiling()) + 1);
        }
        let tenant = Some(request.tenant.clone());
        let full = tokio::select! {
            biased;
            claimed = permits.claim(&tenant, limits, end.saturating_duration_since(before)) => match claimed {
                Ok(claim) => return Ok(claim),
                Err(full) => full,
            },
            claim = PooledWorker::inherit(&request.replaces) => return Ok(claim),
        };
        Err(match full {
            Full(Ceiling::Tenant(tenant), most) => Failure::tenant_full(&self.server.name, &tenant, most),
            Full(_, most) => Failure::pool_full(&self.server.name, most, before.elapsed()),
        })
    }

    /// How long a request waits for capacity: `pool.queue_timeout`, and at least as long as a child that is being replaced
    /// may take to end.
    fn patience(&self, request: &SpawnRequest) -> Duration {
        let (queue_timeout, limits) = (self.server.pool.queue_timeout, &self.server.limits);
        match request.replaces.is_empty() {
            true => queue_timeout,
            // One that does not read its stdin is waited for twice (`stop` in the supervisor).
            false => queue_timeout.max(2 * limits.stdin_grace + limits.term_grace),
        }
    }

    /// Starts a new child for a request.
    async fn start(
        &self,
        request: &SpawnRequest,
        claim: Claim,
        permit: BreakerPermit<'_>,
    ) -> Result<Arc<PooledWorker>, Failure> {
        if request.is_restart {
            self.metrics.restarts.inc();
        }
        let origin = match self.server.isolation {
            Isolation::Shared => Origin::unowned(&self.server.name),
            _ => Origin::new(&request.tenant, &self.server.name, &request.caller),
        };
        self.spawn(claim, origin, request.owner.clone(), permit, &Some(request.tenant.clone())).await
    }

    /// Waits until fewer than `children.spawn_concurrency` starts are under way over all servers.
    async fn start_slot(&self, tenant: &TenantKey) -> Result<Claim, Failure> {
        // Starts are spread even where `pool.queue_timeout` is zero.
        let (before, patience) = (Instant::now(), self.server.pool.queue_timeout.max(2 * STARTING));
        let limits = [(Ceiling::Starts, self.surroundings.spawn_concurrency)];
        let claimed = self.surroundings.permits.claim(tenant, &limits, patience).await;
        claimed.map_err(|_| Failure::spawn_full(&self.server.name, before.elapsed()))
    }

    /// Spawns a child that occupies the claimed capacity, and watches over its end. Starts wait in turns by `tenant`.
    pub(super) async fn spawn(
        &self,
        claim: Claim,
        origin: Origin,
        owner: Owner,
        mut permit: BreakerPermit<'_>,
        tenant: &TenantKey,
    ) -> Result<Arc<PooledWorker>, Failure> {
        let slot = self.start_slot(tenant).await?;
        permit.renew()?;
        let spec = Spec {
            guardian: self.surroundings.guardian.clone(),
            server: Arc::clone(&self.server),
            reach: Arc::clone(&self.reach),
            lookups: self.lookups.clone(),
            origin,
            owner,
            ceilings: self.surroundings.ceilings.clone(),
            slow_client_timeout: self.surroundings.slow_client_timeout,
            metrics: self.metrics.clone(),
            tasks: self.surroundings.tasks.clone(),
            kill: self.surroundings.kill.clone(),
        };
        let end = Instant::now() + STARTING;
        let (slot, spawned) = hold(slot, STARTING, spawn(spec)).await;
        let worker = match spawned {
            Ok(worker) => worker,
            Err(error) => {
                permit.fails();
                let failure = Failure::spawn(&self.server.name, &error);
                let server = &self.server.name;
                if Cause::new("a child could not be started", server.to_string()).is_news(20) {
                    tracing::warn!(%server, "{}", failure.message());
                }
                return Err(failure);
            }
        };
        let child = PooledWorker::new(worker, permit.into_id(), claim);
        self.inventory.lock().children.push(Arc::clone(&child));
        if self.surroundings.draining.is_cancelled() {
            child.worker.stop();
        }
        if let Some(this) = self.this.upgrade() {
            let watched = Arc::clone(&child);
            let slot = slot.map(|slot| (slot, end));
            self.surroundings.tasks.spawn(async move { this.watch(watched, slot).await });
        }
        Ok(child)
    }

    /// Counts a child that hears no `initialize` as started, after a while in which it has not ended.
    pub(super) fn settle_unopened(&self, child: Arc<PooledWorker>) {
        let Some(this) = self.this.upgrade() else { return };
        self.surroundings.tasks.spawn(async move {
            let (tenant, permit) = (child.worker.tenant(), child.permit());
            this.until_settled(&child, &tenant, permit).await;
        });
    }

    /// Waits until the child has answered `initialize`, has ended, or has been up for [`UNOPENED`], and tells the breaker.
    pub(super) async fn until_settled(&self, child: &PooledWorker, tenant: &TenantKey, permit: PermitId) {
        let worker = &child.worker;
        tokio::select! {
            () = worker.settled() => {}
            _ = worker.ended() => {}
            () = tokio::time::sleep(UNOPENED) => worker.settle(),
        }
        match worker.takes_calls() {
            true => self.breaker.opened(tenant, permit),
            false => self.breaker.abandoned(tenant, permit),
        }
    }

    /// Follows a child to its end: gives the start slot back, starts a successor for a shared child that is retired or has
    /// crashed in use, tells the breaker how the child ended, and frees its capacity.
    async fn watch(&self, child: Arc<PooledWorker>, slot: Option<(Claim, Instant)>) {
        let worker = &child.worker;
        // Until the child has answered `initialize`, its start counts as under way.
        if let Some((slot, end)) = slot {
            tokio::select! {
                () = worker.settled() => {}
                _ = worker.ended() => {}
                () = sleep_until(end) => {}
            }
            drop(slot);
        }
        tokio::select! {
            biased;
            () = worker.retired() => succeed(self, &child),
            _ = worker.ended() => {}
        }
        let reason = worker.ended().await;
        self.inventory.lock().forget(&child);
        let (tenant, permit) = (worker.tenant(), child.permit());
        self.breaker.ended(&tenant, worker.answered());
        match reason.is_some_and(ExitReason::is_crash) {
            true => self.breaker.crashed(&tenant, permit, self.answered_for(&tenant), Instant::now()),
            false => self.breaker.abandoned(&tenant, permit),
        }
        // The successor of a child that has served inherits its capacity, before requests that have had no child yet.
        let is_missed = reason.is_some_and(|reason| reason != ExitReason::Stopped) && worker.answered() > 0;
        if is_missed {
            succeed(self, &child);
        }
        self.inventory.lock().dismiss(&child);
        match worker.is_retired() || is_missed {
            true => child.vacate(),
            false => child.clear(),
        }
        drop(child);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::{Config, Server};
    use crate::pool::{Deployments, Pools};

    #[tokio::test]
    async fn a_later_limit_of_a_tenant_counts_the_children_that_run_already() {
        let (pools, tenant) = (Pools::of_nobody(), TenantId::fallback());
        let server = Server::new("s".parse().unwrap(), "nothing", Vec::new());
        let mut config = Config::for_servers([server]);
        let deployed = pools.deploy(&config, &Deployments::default());
        let pool = &deployed.values().next().unwrap().pool;
        let permits = &pool.surroundings.permits;
        let running = permits.try_claim(&pool.limits(Some(&tenant))).unwrap();
        config.tenants.get_mut(&tenant).unwrap().max_children = Some(1);
        pools.deploy(&config, &deployed);
        let limits = pool.limits(Some(&tenant));
        assert_eq!(permits.full(&limits), Some(Full(Ceiling::Tenant(tenant), 1)));
        drop(running);
        assert!(permits.try_claim(&limits).is_some());
    }
}
