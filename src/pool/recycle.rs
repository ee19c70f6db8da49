//! The maintenance of a pool: keeps its spares, and retires children that have reached a limit (`max_age`, `max_rss`,
//! `idle_timeout`): successors replace them, and no call is cut. A child that reaches `max_requests` retires with that
//! call, without this check.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::child::PooledWorker;
use super::pool::Pool;
use super::room::make_room;
use super::spares;
use crate::config::TenantId;
use crate::permits::{Ceiling, Full};
use crate::worker::{Due, Phase};

/// The time between two checks.
const TICK: Duration = Duration::from_millis(500);

/// The time between two looks for an idle child while requests wait for one.
const LOOK: Duration = Duration::from_millis(20);

/// The largest number of holders and ceilings that one look makes room for: each looks at all children.
const SERVED: usize = 16;

/// The pause between a change of the pool, such as a lease, and the start of spares: a start takes processor time from
/// the first calls of a lease.
const HEAD_START: Duration = Duration::from_millis(50);

/// Keeps the spares and recycles children until `stop` is cancelled, and then stops every child.
pub(super) async fn maintain(pool: Arc<Pool>, stop: CancellationToken) {
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_tick = async |is_awaited: bool| {
        tokio::select! {
            () = pool.changed.notified() => {
                tokio::time::sleep(HEAD_START).await;
                false
            }
            () = tokio::time::sleep(LOOK), if is_awaited => false,
            _ = ticks.tick() => true,
        }
    };
    let (mut is_awaited, mut first) = (false, 0);
    while let Some(is_tick) = stop.run_until_cancelled(is_tick(is_awaited)).await {
        if is_tick {
            recycle(&pool).await;
        }
        is_awaited = serve_waiting(&pool, &mut first);
        spares::replenish(&pool);
    }
    pool.inventory.lock().stop_all();
}

/// Makes room for the requests that wait because the server, or somebody with children here, has as many children as it
/// may: one that was in use when a request began to wait may be idle by now. Each look serves at most [`SERVED`] of those
/// that have too many, from `first` on, where the next look goes on. Returns whether any request waits so.
fn serve_waiting(pool: &Pool, first: &mut usize) -> bool {
    let waiting = pool.surroundings.permits.wanted();
    if waiting.is_empty() {
        return false;
    }
    // Of the pools of one server, the latest alone makes room in the server.
    let is_superseded = pool.is_superseded.load(Ordering::Relaxed);
    let tenants = tenants_of(&pool.inventory.lock().children);
    let is_ours = |full: &Full| match &full.ceiling {
        Ceiling::Tenant(tenant) => tenants.contains(tenant),
        Ceiling::InUse(server) | Ceiling::Server(server) => !is_superseded && *server == pool.server.name,
        _ => false,
    };
    let ours: Vec<_> = waiting.into_iter().filter(|(full, _)| is_ours(full)).collect();
    let begin = *first % ours.len().max(1);
    ours.iter()
        .cycle()
        .skip(begin)
        .take(ours.len().min(SERVED))
        .for_each(|(full, count)| make_room(pool, full, *count));
    *first = begin + SERVED;
    !ours.is_empty()
}

/// Retires children over their limits and unused shared ones. Stops starts that no client has taken over in time, and
/// children that have been idle for `sessions.child_idle_timeout`, or whose memory others need.
async fn recycle(pool: &Pool) {
    let memory = match pool.server.pool.max_rss {
        // Reads all processes of the machine, once for all pools: on a thread that serves no requests.
        Some(_) => {
            let guardian = pool.surroundings.guardian.clone();
            spawn_blocking(move || crate::process::memory_of_groups(&guardian)).await.unwrap_or_default()
        }
        None => HashMap::new(),
    };
    let patience = pool.idle_timeout();
    let children = {
        let mut inventory = pool.inventory.lock();
        inventory.starts.tidy(patience);
        inventory.children.clone()
    };
    pool.surroundings.children.end_overdue(&children);
    make_memory(pool, &children);
    for child in children.iter().filter(|child| child.worker.takes_calls()) {
        if let Some(due) = due(pool, child, &memory) {
            child.worker.retire(due);
        }
    }
}

/// Ends an idle child of each tenant with children here whose memory is nearly used up, or of anybody where that of the
/// machine is; none while one is ending.
fn make_memory(pool: &Pool, children: &[Arc<PooledWorker>]) {
    let (all, ceilings) = (&pool.surroundings.children, &pool.surroundings.ceilings);
    if ceilings.is_machine_short_of_memory() {
        all.make_room(|_| true, 1, Due::MemoryRoom);
    }
    for tenant in tenants_of(children).iter().filter(|tenant| ceilings.is_short_of_memory(tenant)) {
        all.make_room(|child| child.worker.tenant().as_ref() == Some(tenant), 1, Due::MemoryRoom);
    }
}

/// The tenants that these children belong to.
fn tenants_of(children: &[Arc<PooledWorker>]) -> HashSet<TenantId> {
    children.iter().filter_map(|child| child.worker.tenant()).collect()
}

/// The limit that a child has reached; `None` if it has reached none. `memory` is in bytes, by process group. A child
/// that a session waits for during the start is not too old. Only a shared child can reach `idle_timeout`.
fn due(pool: &Pool, child: &Arc<PooledWorker>, memory: &HashMap<u32, usize>) -> Option<Due> {
    let (worker, settings) = (&child.worker, &pool.server.pool);
    let has_started = worker.phase() != Phase::Starting || worker.sessions() == 0;
    let is_old = |max| worker.age() >= retirement_age(max, worker.pid());
    if has_started && settings.max_age.is_some_and(is_old) {
        return Some(Due::MaxAge);
    }
    if settings.max_rss.is_some_and(|max| memory.get(&worker.pid()).is_some_and(|rss| *rss >= max)) {
        return Some(Due::MaxRss);
    }
    let unused =
        !pool.is_exclusive() && worker.idle_since().is_some_and(|since| since.elapsed() >= pool.idle_timeout());
    (unused && pool.inventory.lock().shared_of(child).is_some()).then_some(Due::IdleTimeout)
}

/// The age at which a child retires: `max_age` less up to a tenth, chosen by process id. Children that were started
/// together retire one after the other.
fn retirement_age(max_age: Duration, pid: u32) -> Duration {
    max_age - max_age / 640 * (pid % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_that_were_started_together_do_not_become_old_together() {
        let max = Duration::from_secs(6400);
        let ages: std::collections::BTreeSet<_> = (1000..1064).map(|pid| retirement_age(max, pid)).collect();
        assert_eq!(ages.len(), 64);
        assert_eq!((ages.first().copied(), ages.last().copied()), (Some(max - Duration::from_secs(630)), Some(max)));
    }
}
