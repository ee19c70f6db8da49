//! How a child is got: a spare one, or a new one, as soon as the circuit breaker lets it, under the ceilings of its pool and
//! of its tenant, in turns with the starts of all other servers; and what follows its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::breaker_permit::BreakerPermit;
use super::permits::{Slot, Whose};
use super::{Pool, PooledWorker};
use crate::config::{Isolation, TenantId};
use crate::process::{Origin, Owner, Place, hold};
use crate::telemetry::{Cause, ExitReason};
use crate::worker::{Failure, Fingerprint, Spec, spawn};

/// What a child is wanted for.
pub(super) struct SpawnRequest {
    pub(super) tenant: TenantId,
    /// Whose working directory it gets.
    pub(super) owner: Owner,
    /// The public part of the session's id; `-` where several share the child.
    pub(super) session: Arc<str>,
    /// Whether it takes the place of one that is gone, or goes.
    pub(super) is_replay: bool,
    /// Children that are being replaced: the new one may inherit the capacity of one.
    pub(super) replaces: Vec<Arc<PooledWorker>>,
}

/// A start that takes longer than this waits for something else than the processors of this machine, such as a download:
/// others start meanwhile.
const STARTING: Duration = Duration::from_secs(5);

impl Pool {
    /// A child for the tenant, under its ceiling; where everybody shares it, for nobody.
    pub(super) async fn obtain(
        &self,
        request: &SpawnRequest,
        fingerprint: &Fingerprint,
    ) -> Result<Arc<PooledWorker>, Failure> {
        let is_owned = self.server.isolation != Isolation::Shared;
        let mut permit = self.admitted(is_owned.then(|| request.tenant.clone())).await?;
        let place = if is_owned { Some(self.place(request).await?) } else { None };
        permit.renew()?;
        let takes_spares = !is_owned || self.surroundings.ceilings.takes_spares(&request.tenant);
        let spare = takes_spares.then(|| self.inventory.lock().take_spare(fingerprint)).flatten();
        let (child, permit) = match spare {
            Some(spare) => (spare, Some(permit)),
            None => (self.start(request, permit).await?, None),
        };
        if let Some(place) = place {
            child.worker.adopt(&request.tenant, &request.session);
            child.add(place);
        }
        permit.into_iter().for_each(|permit| permit.adopts(&child));
        Ok(child)
    }

    /// A place for one more child of the tenant: that of a child which is being replaced, or another.
    async fn place(&self, request: &SpawnRequest) -> Result<Place, Failure> {
        let free = self.surroundings.ceilings.place(&request.tenant, self.patience(request));
        tokio::select! {
            biased;
            place = free => place.map_err(|full| Failure::tenant_full(&self.server.name, &full)),
            place = PooledWorker::inherit(&request.replaces, PooledWorker::take_place) => Ok(place),
        }
    }

    /// Starts a new child under the ceiling.
    async fn start(&self, request: &SpawnRequest, mut permit: BreakerPermit<'_>) -> Result<Arc<PooledWorker>, Failure> {
        let slot = match self.slots.try_take() {
            Some(slot) => slot,
            None => {
                let slot = self.wait_for_slot(request).await?;
                permit.renew()?;
                slot
            }
        };
        if request.is_replay {
            self.metrics.restarts.inc();
        }
        let origin = match self.server.isolation {
            // It counts for nobody, whoever has asked for it first.
            Isolation::Shared => Origin::unowned(&self.server.name),
            _ => Origin::new(&request.tenant, &self.server.name, &request.session),
        };
        self.spawn(slot, origin, request.owner.clone(), permit, &Some(request.tenant.clone())).await
    }

    /// The ceiling is reached: something that nobody uses makes room, or the child that is being replaced does, or the
    /// session waits its turn.
    async fn wait_for_slot(&self, request: &SpawnRequest) -> Result<Slot, Failure> {
        let before = Instant::now();
        self.inventory.lock().make_room(self.slots.queued() + 1);
        let whose = Some(request.tenant.clone());
        let slot = tokio::select! {
            slot = self.slots.take(&whose, self.patience(request)) => slot,
            slot = PooledWorker::inherit(&request.replaces, PooledWorker::take_slot) => Some(slot),
        };
        slot.ok_or_else(|| Failure::pool_full(&self.server.name, self.server.pool.max_children, before.elapsed()))
    }

    /// How long to wait for room. One that is being replaced has the time at least that its end takes.
    fn patience(&self, request: &SpawnRequest) -> Duration {
        let (queue_timeout, limits) = (self.server.pool.queue_timeout, &self.server.limits);
        match request.replaces.is_empty() {
            true => queue_timeout,
            // One that does not read its stdin is waited for twice (`stop` in the supervisor).
            false => queue_timeout.max(2 * limits.stdin_grace + limits.term_grace),
        }
    }

    /// Waits for the turn of a start `by` somebody: a few at a time over all servers.
    async fn take_turn(&self, by: &Whose, permit: &mut BreakerPermit<'_>) -> Result<Slot, Failure> {
        if let Some(turn) = self.turns.try_take() {
            return Ok(turn);
        }
        // Starts are spread even where nobody is to queue for the ceiling.
        let (before, patience) = (Instant::now(), self.server.pool.queue_timeout.max(2 * STARTING));
        let turn = self.turns.take(by, patience).await;
        let turn = turn.ok_or_else(|| Failure::spawn_full(&self.server.name, before.elapsed()))?;
        permit.renew()?;
        Ok(turn)
    }

    /// Spawns a child, when it is the turn of who asked for it, and watches over its end.
    pub(super) async fn spawn(
        &self,
        slot: Slot,
        origin: Origin,
        owner: Owner,
        mut permit: BreakerPermit<'_>,
        by: &Whose,
    ) -> Result<Arc<PooledWorker>, Failure> {
        let turn = self.take_turn(by, &mut permit).await?;
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
        let end_of_turn = Instant::now() + STARTING;
        let (turn, spawned) = hold(turn, STARTING, spawn(spec)).await;
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
        let child = PooledWorker::new(worker, permit.into_id(), slot);
        self.inventory.lock().children.push(Arc::clone(&child));
        if self.surroundings.draining.is_cancelled() {
            child.worker.stop();
        }
        if let Some(this) = self.this.upgrade() {
            let watched = Arc::clone(&child);
            let turn = turn.map(|turn| (turn, end_of_turn));
            self.surroundings.tasks.spawn(async move { this.watch(watched, turn).await });
        }
        Ok(child)
    }

    async fn watch(&self, child: Arc<PooledWorker>, turn: Option<(Slot, Instant)>) {
        let worker = &child.worker;
        // Until the child has answered `initialize`, it counts as one that is being started.
        if let Some((turn, end)) = turn {
            tokio::select! {
                () = worker.settled() => {}
                _ = worker.ended() => {}
                () = sleep_until(end) => {}
            }
            drop(turn);
        }
        tokio::select! {
            biased;
            () = worker.retired() => self.succeed(&child),
            _ = worker.ended() => {}
        }
        let reason = worker.ended().await;
        self.inventory.lock().forget(&child);
        let (whose, permit) = (worker.tenant(), child.permit());
        self.breaker.ended(&whose, worker.answered());
        match reason.is_some_and(ExitReason::is_crash) {
            true => self.breaker.crashed(&whose, permit, self.answered_for(&whose), Instant::now()),
            false => self.breaker.abandoned(&whose, permit),
        }
        // Its sessions have been served, and get another at once: in its room, and not behind those who have had none yet.
        let is_missed = reason.is_some_and(|reason| reason != ExitReason::Stopped) && worker.answered() > 0;
        if is_missed {
            self.succeed(&child);
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
