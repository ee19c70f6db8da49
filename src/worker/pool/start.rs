//! How a child is got: a spare one, or a new one, under the ceilings of its pool and of its tenant; and what follows its
//! end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::slots::Slot;
use super::{Pool, Room};
use crate::config::{Isolation, TenantId};
use crate::process::{Origin, Place};
use crate::telemetry::ExitReason;
use crate::worker::error::Failure;
use crate::worker::handle::Worker;
use crate::worker::opening::Fingerprint;
use crate::worker::restart::{Admission, Breaker, is_crash};
use crate::worker::supervisor::{Spec, spawn};

/// What a child is wanted for.
pub(super) struct Order {
    pub(super) tenant: TenantId,
    /// The public part of the session's id; `-` where several share the child.
    pub(super) session: Arc<str>,
    /// Whether it takes the place of one that is gone, or goes.
    pub(super) is_replay: bool,
    /// The rooms of children that are being replaced: it may have one of them.
    pub(super) before: Vec<Arc<Room>>,
}

/// A start that takes longer than this waits for something else than the processors of this machine, such as a download:
/// others start meanwhile.
const STARTING: Duration = Duration::from_secs(5);

/// An attempt to get a child, which a half-open circuit waits for.
struct Attempt<'a> {
    breaker: &'a Breaker<Option<TenantId>>,
    /// Whose it is, until there is a child.
    tenant: Option<Option<TenantId>>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.tenant.iter().for_each(|tenant| self.breaker.abandoned(tenant));
    }
}

impl Pool {
    /// A child for the tenant, under its ceiling; where everybody shares it, for nobody.
    pub(super) async fn obtain(&self, order: &Order, fingerprint: &Fingerprint) -> Result<Worker, Failure> {
        let is_owned = self.server.isolation != Isolation::Shared;
        // Whoever leaves before there is a child, or gets one that was started for nobody, has tried nothing.
        let mut attempt = self.admit(order).await?;
        let place = if is_owned { Some(self.place(order).await?) } else { None };
        let takes_spares = !is_owned || self.surroundings.ceilings.takes_spares(&order.tenant);
        let spare = takes_spares.then(|| self.shelf.lock().take_spare(fingerprint)).flatten();
        let worker = match spare {
            Some(spare) => {
                if spare.opened().is_some() {
                    self.breaker.opened(&Some(order.tenant.clone()));
                }
                spare
            }
            None => self.start(order, &mut attempt).await?,
        };
        if let Some(place) = place {
            worker.adopt(&order.tenant, &order.session);
            worker.room().inspect(|room| room.add(place));
        }
        Ok(worker)
    }

    /// A place for one more child of the tenant: that of a child which is being replaced, or another.
    async fn place(&self, order: &Order) -> Result<Place, Failure> {
        let free = self.surroundings.ceilings.place(&order.tenant, self.patience(order));
        tokio::select! {
            biased;
            place = free => place.map_err(|full| Failure::tenant_full(&self.server.name, &full)),
            place = Room::inherit(&order.before, Room::take_place) => Ok(place),
        }
    }

    /// Waits until the circuit breaker lets the tenant have a child.
    async fn admit(&self, order: &Order) -> Result<Attempt<'_>, Failure> {
        let tenant = Some(order.tenant.clone());
        let pause = match self.breaker.admit(&tenant, Instant::now()) {
            Admission::After(pause) => pause,
            Admission::Refused(retry) => return Err(Failure::crash_loop(&self.server.name, retry)),
        };
        let attempt = Attempt { breaker: &self.breaker, tenant: Some(tenant) };
        tokio::time::sleep(pause).await;
        Ok(attempt)
    }

    /// Starts a new child under the ceiling.
    async fn start(&self, order: &Order, attempt: &mut Attempt<'_>) -> Result<Worker, Failure> {
        let slot = match self.slots.try_take() {
            Some(slot) => slot,
            None => self.wait_for_slot(order).await?,
        };
        if order.is_replay {
            self.metrics.restarts.inc();
        }
        let origin = match self.server.isolation {
            // It counts for nobody, whoever has asked for it first.
            Isolation::Shared => Origin::unowned(&self.server.name),
            _ => Origin::new(&order.tenant, &self.server.name, &order.session),
        };
        let spawned = self.spawn(slot, origin, Some(order.tenant.clone())).await;
        attempt.tenant = None;
        spawned
    }

    /// The ceiling is reached: something that nobody uses makes room, or the child that is being replaced does, or the
    /// session waits its turn.
    async fn wait_for_slot(&self, order: &Order) -> Result<Slot, Failure> {
        let before = Instant::now();
        self.shelf.lock().make_room();
        let slot = tokio::select! {
            slot = self.slots.take(&order.tenant, self.patience(order)) => slot,
            slot = Room::inherit(&order.before, Room::take_slot) => Some(slot),
        };
        slot.ok_or_else(|| Failure::pool_full(&self.server.name, self.server.pool.max_children, before.elapsed()))
    }

    /// How long to wait for room. One that is being replaced has the time at least that its end takes.
    fn patience(&self, order: &Order) -> Duration {
        let (queue_timeout, limits) = (self.server.pool.queue_timeout, &self.server.limits);
        match order.before.is_empty() {
            true => queue_timeout,
            false => queue_timeout.max(limits.stdin_grace + limits.term_grace),
        }
    }

    /// Spawns a child, a few at a time over all servers, and watches over its end.
    pub(super) async fn spawn(&self, slot: Slot, origin: Origin, tenant: Option<TenantId>) -> Result<Worker, Failure> {
        let stopped = || Failure::stopped(&self.server.name);
        let permit = Arc::clone(&self.surroundings.spawning).acquire_owned().await.map_err(|_| stopped())?;
        let spec = Spec {
            guardian: self.surroundings.guardian.clone(),
            server: Arc::clone(&self.server),
            origin,
            ceilings: self.surroundings.ceilings.clone(),
            slow_client_timeout: self.surroundings.slow_client_timeout,
            metrics: self.metrics.clone(),
            tasks: self.surroundings.tasks.clone(),
            kill: self.surroundings.kill.clone(),
        };
        let worker = spawn(spec).await.map_err(|error| {
            self.breaker.crashed(&tenant, self.answered_for(&tenant), Instant::now());
            let failure = Failure::spawn(&self.server.name, &error);
            tracing::warn!(server = %self.server.name, "{}", failure.message());
            failure
        })?;
        let room = Room::new(slot);
        let _ = worker.shared().room.set(Arc::downgrade(&room));
        self.shelf.lock().workers.push(worker.clone());
        if self.surroundings.draining.is_cancelled() {
            worker.stop();
        }
        if let Some(this) = self.this.upgrade() {
            let watched = worker.clone();
            self.surroundings.tasks.spawn(async move {
                this.watch(watched, room, tenant, permit).await;
            });
        }
        Ok(worker)
    }

    async fn watch(&self, worker: Worker, room: Arc<Room>, tenant: Option<TenantId>, permit: OwnedSemaphorePermit) {
        // Until the child has answered `initialize`, it counts as one that is being started.
        tokio::select! {
            () = worker.settled() => {}
            _ = worker.ended() => {}
            () = tokio::time::sleep(STARTING) => {}
        }
        drop(permit);
        tokio::select! {
            biased;
            () = worker.retired() => self.succeed(&worker),
            _ = worker.ended() => {}
        }
        let reason = worker.ended().await;
        self.shelf.lock().forget(&worker);
        let tenant = tenant.or_else(|| worker.shared().origin.tenant());
        self.breaker.ended(&tenant, worker.answered());
        // A spare has nothing to finish with.
        let is_crash = |reason| is_crash(reason) || (tenant.is_none() && reason == ExitReason::Finished);
        match reason.is_some_and(is_crash) {
            true => self.breaker.crashed(&tenant, self.answered_for(&tenant), Instant::now()),
            false => self.breaker.abandoned(&tenant),
        }
        match worker.is_retired() {
            true => room.vacate(),
            false => room.clear(),
        }
        drop(room);
        self.changed.notify_one();
    }
}
