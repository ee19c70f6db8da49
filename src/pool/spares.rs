//! Spares: children that are started before a request needs one.
//!
//! Invariant: a spare has run for no tenant. It holds no tenant's secret, and hears only an `initialize` of the
//! gateway's own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::PermitId;
use super::breaker_permit::BreakerPermit;
use super::inventory::{Inventory, Spare};
use super::pool::Pool;
use super::start::{open, spawn, until_settled};
use crate::config::PoolMode;
use crate::permits::{Ceiling, Claim, Claimant};
use crate::telemetry::Cause;
use crate::worker::{Lease, Nobody, Opening, Payer};

/// Starts the missing spares, as far as capacity is free now and the breaker asks for no pause, and stops spares that
/// are too many or out of demand.
pub(super) fn replenish(pool: &Pool) {
    let missing = missing_spares(pool, &mut pool.inventory.lock());
    let (permits, nobody) = (&pool.surroundings.permits, Claimant::nobody());
    for _ in 0..missing {
        let most = pool.surroundings.spawn_concurrency.div_ceil(2);
        let Ok(slot) = permits.try_claim(&nobody, &[(Ceiling::SpareStarts, most)]) else { return };
        let Ok(claim) = permits.try_claim(&nobody, &[pool.place()]) else { return };
        // Before the permit of the breaker: without room there is no attempt, and the next one is made at the next tick.
        let Ok(payer) = pool.payer(None) else { return };
        // After a crash no spare is started before the pause of the breaker is over.
        let Ok((permit, Duration::ZERO)) = pool.breaker.admit(&None, Instant::now()) else { return };
        pool.inventory.lock().starting_spares += 1;
        start_spare(pool, (slot, claim), payer, permit);
    }
}

/// The number of spares to start. Stops spares out of demand, and those that stand in the way of a spare in demand.
fn missing_spares(pool: &Pool, inventory: &mut Inventory) -> usize {
    let settings = &pool.server.pool;
    inventory.spares.retain(|spare| spare.child.worker.takes_calls());
    if pool.is_superseded.load(Ordering::Relaxed) {
        inventory.spares.drain(..).for_each(|spare| spare.child.worker.stop());
        return 0;
    }
    let (demand, now) = (&inventory.demand, Instant::now());
    let is_stale = |spare: &mut Spare| demand.is_stale(spare.key.as_ref(), settings.idle_timeout, now);
    inventory.spares.extract_if(.., is_stale).for_each(|spare| spare.child.worker.stop());
    let all = inventory.spares.len() + inventory.starting_spares;
    let is_wanted = |spare: &Spare| demand.is_for_latest(spare.key.as_ref());
    let wanted = inventory.spares.iter().filter(|spare| is_wanted(spare)).count() + inventory.starting_spares;
    let (missing, too_many) = match settings.mode {
        PoolMode::Ondemand => return 0,
        PoolMode::Dynamic => {
            let missing = settings.min_spare.saturating_sub(wanted);
            (missing, (all + missing).saturating_sub(settings.max_spare))
        }
        // A full pool without a spare in demand stops one other spare at a time.
        PoolMode::Static => {
            let is_full = wanted == 0 && inventory.children.iter().all(|child| child.worker.takes_calls());
            let is_full = is_full && pool.surroundings.permits.full(&Claimant::nobody(), &[pool.place()]).is_some();
            (settings.max_children.saturating_sub(all), usize::from(is_full))
        }
    };
    inventory
        .spares
        .extract_if(.., |spare| !is_wanted(spare))
        .take(too_many)
        .for_each(|spare| spare.child.worker.stop());
    missing
}

/// Starts a spare in a task of its own, which holds the start slot until the child is up, as far as is known.
fn start_spare(pool: &Pool, (slot, claim): (Claim, Claim), payer: Payer, permit: PermitId) {
    pool.spawn(async move |pool| {
        let spare = prepare_spare(&pool, claim, BreakerPermit::new(&pool, None, permit), payer);
        let spare = pool.surroundings.draining.run_until_cancelled(spare).await.flatten();
        let child = spare.as_ref().map(|spare| Arc::clone(&spare.child));
        {
            let mut inventory = pool.inventory.lock();
            inventory.starting_spares -= 1;
            inventory.spares.extend(spare);
        }
        if let Some(child) = child {
            until_settled(&pool, &child, &None, permit).await;
        }
        drop(slot);
        pool.changed.notify_one();
    });
}

/// Starts a spare, and opens it for the latest demand. `None` if the child does not start, or answers with an error.
async fn prepare_spare(pool: &Pool, claim: Claim, permit: BreakerPermit<'_>, payer: Payer) -> Option<Spare> {
    let child = spawn(pool, None, claim, permit, payer).await.ok()?;
    // Before the first client has come, the spare waits without `initialize`.
    let wanted = pool.inventory.lock().demand.latest.clone();
    let Some(Opening { message, key }) = wanted else { return Some(Spare { child, key: None }) };
    let lease = Lease::new(child.worker.clone(), Nobody::holder(), false);
    let answer = open(pool, &child, &lease, &message).await;
    if child.worker.opened().is_none() {
        let (server, started) = (&pool.server.name, answer.is_ok());
        if Cause::new("a spare child did not open", server.to_string()).is_news(20) {
            tracing::warn!(%server, started, "a spare child did not open");
        }
        if answer.is_ok() {
            // A refusal is no exit, but the next spare would refuse likewise.
            pool.crashed(&None, *child.permit.lock());
        }
        child.worker.stop();
        return None;
    }
    Some(Spare { child, key: Some(key) })
}
