//! How a child is got: a spare one, or a new one, as soon as the circuit breaker lets it, under the ceilings of its pool and
//! of its tenant, in turns with the starts of all other servers; and what follows its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::slots::{Slot, Whose};
use super::trial::Trial;
use super::{Pool, Room};
use crate::config::{Isolation, TenantId};
use crate::process::{Origin, Owner, Place, hold};
use crate::telemetry::{Cause, ExitReason};
use crate::worker::error::Failure;
use crate::worker::handle::Worker;
use crate::worker::opening::Fingerprint;
use crate::worker::restart::is_crash;
use crate::worker::supervisor::{Spec, spawn};

/// What a child is wanted for.
pub(super) struct Order {
    pub(super) tenant: TenantId,
    /// Whose working directory it gets.
    pub(super) owner: Owner,
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

impl Pool {
    /// A child for the tenant, under its ceiling; where everybody shares it, for nobody.
    pub(super) async fn obtain(&self, order: &Order, fingerprint: &Fingerprint) -> Result<Worker, Failure> {
        let is_owned = self.server.isolation != Isolation::Shared;
        let mut trial = self.admitted(is_owned.then(|| order.tenant.clone())).await?;
        let place = if is_owned { Some(self.place(order).await?) } else { None };
        trial.renew()?;
        let takes_spares = !is_owned || self.surroundings.ceilings.takes_spares(&order.tenant);
        let spare = takes_spares.then(|| self.shelf.lock().take_spare(fingerprint)).flatten();
        let (worker, trial) = match spare {
            Some(spare) => (spare, Some(trial)),
            None => (self.start(order, trial).await?, None),
        };
        if let Some(place) = place {
            worker.adopt(&order.tenant, &order.session);
            worker.room().inspect(|room| room.add(place));
        }
        trial.into_iter().for_each(|trial| trial.comes_to(&worker));
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

    /// Starts a new child under the ceiling.
    async fn start(&self, order: &Order, mut trial: Trial<'_>) -> Result<Worker, Failure> {
        let slot = match self.slots.try_take() {
            Some(slot) => slot,
            None => {
                let slot = self.wait_for_slot(order).await?;
                trial.renew()?;
                slot
            }
        };
        if order.is_replay {
            self.metrics.restarts.inc();
        }
        let origin = match self.server.isolation {
            // It counts for nobody, whoever has asked for it first.
            Isolation::Shared => Origin::unowned(&self.server.name),
            _ => Origin::new(&order.tenant, &self.server.name, &order.session),
        };
        self.spawn(slot, origin, order.owner.clone(), trial, &Some(order.tenant.clone())).await
    }

    /// The ceiling is reached: something that nobody uses makes room, or the child that is being replaced does, or the
    /// session waits its turn.
    async fn wait_for_slot(&self, order: &Order) -> Result<Slot, Failure> {
        let before = Instant::now();
        self.shelf.lock().make_room(self.slots.queued() + 1);
        let whose = Some(order.tenant.clone());
        let slot = tokio::select! {
            slot = self.slots.take(&whose, self.patience(order)) => slot,
            slot = Room::inherit(&order.before, Room::take_slot) => Some(slot),
        };
        slot.ok_or_else(|| Failure::pool_full(&self.server.name, self.server.pool.max_children, before.elapsed()))
    }

    /// How long to wait for room. One that is being replaced has the time at least that its end takes.
    fn patience(&self, order: &Order) -> Duration {
        let (queue_timeout, limits) = (self.server.pool.queue_timeout, &self.server.limits);
        match order.before.is_empty() {
            true => queue_timeout,
            // One that does not read its stdin is waited for twice (`stop` in the supervisor).
            false => queue_timeout.max(2 * limits.stdin_grace + limits.term_grace),
        }
    }

    /// Waits for the turn of a start `by` somebody: a few at a time over all servers.
    async fn take_turn(&self, by: &Whose, trial: &mut Trial<'_>) -> Result<Slot, Failure> {
        if let Some(turn) = self.turns.try_take() {
            return Ok(turn);
        }
        // Starts are spread even where nobody is to queue for the ceiling.
        let (before, patience) = (Instant::now(), self.server.pool.queue_timeout.max(2 * STARTING));
        let turn = self.turns.take(by, patience).await;
        let turn = turn.ok_or_else(|| Failure::spawn_full(&self.server.name, before.elapsed()))?;
        trial.renew()?;
        Ok(turn)
    }

    /// Spawns a child, when it is the turn of who asked for it, and watches over its end.
    pub(super) async fn spawn(
        &self,
        slot: Slot,
        origin: Origin,
        owner: Owner,
        mut trial: Trial<'_>,
        by: &Whose,
    ) -> Result<Worker, Failure> {
        let turn = self.take_turn(by, &mut trial).await?;
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
                trial.fails();
                let failure = Failure::spawn(&self.server.name, &error);
                let server = &self.server.name;
                if Cause::new("a child could not be started", server.to_string()).is_news(20) {
                    tracing::warn!(%server, "{}", failure.message());
                }
                return Err(failure);
            }
        };
        trial.comes_to(&worker);
        let room = Room::new(slot);
        let _ = worker.shared().room.set(Arc::downgrade(&room));
        self.shelf.lock().workers.push(worker.clone());
        if self.surroundings.draining.is_cancelled() {
            worker.stop();
        }
        if let Some(this) = self.this.upgrade() {
            let watched = worker.clone();
            let turn = turn.map(|turn| (turn, end_of_turn));
            self.surroundings.tasks.spawn(async move { this.watch(watched, room, turn).await });
        }
        Ok(worker)
    }

    async fn watch(&self, worker: Worker, room: Arc<Room>, turn: Option<(Slot, Instant)>) {
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
            () = worker.retired() => self.succeed(&worker),
            _ = worker.ended() => {}
        }
        let reason = worker.ended().await;
        self.shelf.lock().forget(&worker);
        let (whose, attempt) = (worker.shared().origin.tenant(), worker.attempt());
        self.breaker.ended(&whose, worker.answered());
        match reason.is_some_and(is_crash) {
            true => self.breaker.crashed(&whose, attempt, self.answered_for(&whose), Instant::now()),
            false => self.breaker.abandoned(&whose, attempt),
        }
        // Its sessions have been served, and get another at once: in its room, and not behind those who have had none yet.
        let is_missed = reason.is_some_and(|reason| reason != ExitReason::Stopped) && worker.answered() > 0;
        if is_missed {
            self.succeed(&worker);
        }
        self.shelf.lock().dismiss(&worker);
        match worker.is_retired() || is_missed {
            true => room.vacate(),
            false => room.clear(),
        }
        drop(room);
        self.changed.notify_one();
    }
}
