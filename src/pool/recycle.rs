//! Retires children that have reached a limit of their pool (`max_age`, `max_rss`, `idle_timeout`): successors replace them, and
//! no call is cut. A child that reaches `max_requests` retires with that call, without this check.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::child::PooledWorker;
use super::permits::Ceiling;
use super::pool::Pool;
use crate::worker::{Due, Phase};

/// The time between two checks.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// Retires children over their limits and unused shared ones. Stops starts that no client has taken over in time, and
/// unused children of tenants that wait at their own ceiling.
pub(super) async fn recycle(pool: &Pool) {
    let memory = match pool.server.pool.max_rss {
        // Reads all processes of the machine, once for all pools: on a thread that serves no requests.
        Some(_) => {
            let guardian = pool.surroundings.guardian.clone();
            spawn_blocking(move || crate::process::memory_of_groups(&guardian)).await.unwrap_or_default()
        }
        None => HashMap::new(),
    };
    let (patience, permits) = (pool.idle_timeout(), &pool.surroundings.permits);
    let children = {
        let mut inventory = pool.inventory.lock();
        inventory.starts.tidy(patience);
        inventory.make_places(|tenant| permits.waiting_for(&Ceiling::Tenant(tenant.clone())) > 0);
        inventory.children.clone()
    };
    for child in children.iter().filter(|child| child.worker.takes_calls()) {
        if let Some(due) = due(pool, child, &memory) {
            child.worker.retire(due);
        }
    }
}

/// The limit that a child has reached, if any. `memory` is in bytes, by process group.
fn due(pool: &Pool, child: &Arc<PooledWorker>, memory: &HashMap<u32, usize>) -> Option<Due> {
    let (worker, settings) = (&child.worker, &pool.server.pool);
    let has_started = worker.phase() != Phase::Starting || worker.sessions() == 0;
    let is_old = |max| worker.age() >= retirement_age(max, worker.pid().unwrap_or_default());
    if has_started && settings.max_age.is_some_and(is_old) {
        return Some(Due::MaxAge);
    }
    if settings.max_rss.is_some_and(|max| worker.pid().and_then(|pid| memory.get(&pid)).is_some_and(|rss| *rss >= max))
    {
        return Some(Due::MaxRss);
    }
    let unused =
        !pool.is_exclusive() && worker.idle_since().is_some_and(|since| since.elapsed() >= pool.idle_timeout());
    (unused && pool.inventory.lock().shared_of(child).is_some()).then_some(Due::IdleTimeout)
}

/// The age at which a child retires: `max_age` less up to a tenth, chosen by process id. Children that were started together
/// retire one after the other.
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
