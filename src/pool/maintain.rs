//! The task of a pool that keeps the spares and recycles children.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::pool::Pool;
use super::{recycle, spares};

/// The pause between a lease and the start of spares: a start takes processor time from the first calls of the lease.
const HEAD_START: Duration = Duration::from_millis(50);

/// Keeps the spares and recycles children until `stop` is cancelled, and then stops every child.
pub(super) async fn maintain(pool: Arc<Pool>, stop: CancellationToken) {
    let mut ticks = interval_at(Instant::now() + recycle::TICK, recycle::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_tick = async || {
        tokio::select! {
            () = pool.changed.notified() => {
                tokio::time::sleep(HEAD_START).await;
                false
            }
            _ = ticks.tick() => true,
        }
    };
    while let Some(is_tick) = stop.run_until_cancelled(is_tick()).await {
        if is_tick {
            recycle::recycle(&pool).await;
        }
        // A child that was in use when a request began to wait may be unused by now. Of the pools of one server, the latest
        // alone makes room for those that wait: the others keep nothing unused anyway.
        let queued = if pool.is_superseded.load(Ordering::Relaxed) { 0 } else { pool.queued() };
        if queued > 0 {
            pool.inventory.lock().make_room(queued);
        }
        spares::replenish(&pool);
    }
    pool.inventory.lock().stop_all();
}
