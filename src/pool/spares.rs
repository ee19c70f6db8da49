//! Children that are started before anybody asks. A spare has been nobody's: it holds no tenant's secret, and is told nothing
//! that is a client's own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::breaker::{Admission, PermitId};
use super::inventory::{Inventory, Spare};
use super::permits::Slot;
use super::{Pool, PooledWorker};
use crate::config::PoolMode;
use crate::process::{Origin, Owner};
use crate::telemetry::Cause;
use crate::worker::{Lease, Nobody, Opening};

/// Until it is spoken to, nobody can tell when a child is up. It counts as one that is being started for this long.
const UNOPENED: Duration = Duration::from_secs(1);

impl Pool {
    /// Starts as many spares as there should be, and stops those that are too many, or that nobody would take.
    pub(super) fn replenish(&self) {
        let missing = self.missing_spares(&mut self.inventory.lock());
        for _ in 0..missing {
            // Whoever waits for a child comes first.
            let Ok(permit) = Arc::clone(&self.surroundings.spawning_spares).try_acquire_owned() else { return };
            let Some(slot) = self.slots.try_take() else { return };
            // A server that does not start is not tried over and over for nobody.
            let Admission::After(attempt, Duration::ZERO) = self.breaker.admit(&None, Instant::now()) else { return };
            self.inventory.lock().starting_spares += 1;
            self.start_spare(slot, permit, attempt);
        }
    }

    /// How many are to be started. Those that are in their way are stopped.
    fn missing_spares(&self, inventory: &mut Inventory) -> usize {
        let pool = &self.server.pool;
        inventory.spares.retain(|spare| spare.child.worker.takes_calls());
        let (demand, now) = (&inventory.demand, Instant::now());
        let is_stale = |spare: &mut Spare| demand.is_stale(spare.fingerprint.as_ref(), pool.idle_timeout, now);
        inventory.spares.extract_if(.., is_stale).for_each(|spare| spare.child.worker.stop());
        let all = inventory.spares.len() + inventory.starting_spares;
        let is_wanted = |spare: &&Spare| demand.is_for_latest(spare.fingerprint.as_ref());
        let wanted = inventory.spares.iter().filter(is_wanted).count() + inventory.starting_spares;
        let (missing, too_many) = match pool.mode {
            PoolMode::Ondemand => return 0,
            PoolMode::Dynamic => {
                let missing = pool.min_spare.saturating_sub(wanted);
                (missing, (all + missing).saturating_sub(pool.max_spare))
            }
            // One at a time makes room for one that the next client would take.
            PoolMode::Static => {
                let is_full = wanted == 0 && inventory.children.iter().all(|child| child.worker.takes_calls());
                (pool.max_children.saturating_sub(all), usize::from(is_full && self.slots.is_full()))
            }
        };
        let not_wanted = |spare: &mut Spare| !demand.is_for_latest(spare.fingerprint.as_ref());
        inventory.spares.extract_if(.., not_wanted).take(too_many).for_each(|spare| spare.child.worker.stop());
        missing
    }

    fn start_spare(&self, slot: Slot, permit: OwnedSemaphorePermit, attempt: PermitId) {
        let Some(this) = self.this.upgrade() else { return };
        self.surroundings.tasks.spawn(async move {
            let spare = this.prepare_spare(slot, attempt);
            let spare = this.surroundings.draining.run_until_cancelled(spare).await.flatten();
            let child = spare.as_ref().map(|spare| Arc::clone(&spare.child));
            {
                let mut inventory = this.inventory.lock();
                inventory.starting_spares -= 1;
                if this.surroundings.draining.is_cancelled() {
                    spare.inspect(|spare| spare.child.worker.stop());
                } else {
                    inventory.spares.extend(spare);
                }
            }
            if let Some(child) = child {
                this.until_settled(&child, attempt).await;
            }
            drop(permit);
            this.changed.notify_one();
        });
    }

    /// Waits until the start of a spare is over, as far as anybody can tell.
    async fn until_settled(&self, child: &PooledWorker, attempt: PermitId) {
        let worker = &child.worker;
        tokio::select! {
            () = worker.settled() => {}
            _ = worker.ended() => {}
            () = tokio::time::sleep(UNOPENED) => worker.settle(),
        }
        // It may be somebody's by now: then what becomes of it says nothing of the attempt that it was.
        match worker.takes_calls() {
            true => self.breaker.opened(&None, attempt),
            false => self.breaker.abandoned(&None, attempt),
        }
    }

    async fn prepare_spare(&self, slot: Slot, attempt: PermitId) -> Option<Spare> {
        let permit = self.permit(None, attempt);
        let child =
            self.spawn(slot, Origin::unowned(&self.server.name), Owner::everybody(), permit, &None).await.ok()?;
        // Where it is not known what the first client will ask for, the child waits unopened.
        let wanted = self.inventory.lock().demand.latest().cloned();
        let Some(Opening { message, fingerprint }) = wanted else { return Some(Spare { child, fingerprint: None }) };
        let lease = Lease::new(child.worker.clone(), Nobody::peer(), false);
        let answer = self.open(&child, &lease, &message).await;
        if child.worker.opened().is_none() {
            let (server, started) = (&self.server.name, answer.is_ok());
            if Cause::new("a spare child did not open", server.to_string()).is_news(20) {
                tracing::warn!(%server, started, "a spare child did not open");
            }
            if answer.is_ok() {
                // It refused, which is no end of its own: the next one would refuse likewise.
                self.breaker.crashed(&None, child.permit(), self.answered_for(&None), Instant::now());
            }
            child.worker.stop();
            return None;
        }
        Some(Spare { child, fingerprint: Some(fingerprint) })
    }
}
