//! Children that have served long enough are retired: others take their places, and no call is cut. Those that have had all
//! their calls (`max_requests`) need not be looked for: they retire with the last one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::{Pool, PooledWorker};
use crate::worker::{Due, Phase};

/// How often children are looked at.
pub(super) const TICK: Duration = Duration::from_millis(500);

impl Pool {
    /// Retires what is over its limits, or shared and unused; ends starts that nobody comes back for, and what nobody uses where
    /// its tenant waits for the place.
    pub(super) async fn recycle(&self) {
        let memory = match self.server.pool.max_rss {
            // It reads about every process of the machine, once for all pools: not on a thread that serves others.
            Some(_) => {
                let guardian = self.surroundings.guardian.clone();
                spawn_blocking(move || crate::process::memory_of_groups(&guardian)).await.unwrap_or_default()
            }
            None => HashMap::new(),
        };
        let (patience, ceilings) = (self.server.pool.idle_timeout, &self.surroundings.ceilings);
        let children = {
            let mut inventory = self.inventory.lock();
            inventory.starts.tidy(patience);
            inventory.make_places(|tenant| ceilings.is_waited_for(tenant));
            inventory.children.clone()
        };
        for child in children.iter().filter(|child| child.worker.takes_calls()) {
            if let Some(due) = self.due(child, &memory) {
                child.worker.retire(due);
            }
        }
    }

    fn due(&self, child: &Arc<PooledWorker>, memory: &HashMap<u32, usize>) -> Option<Due> {
        let (worker, pool) = (&child.worker, &self.server.pool);
        let has_started = worker.phase() != Phase::Starting || worker.sessions() == 0;
        let is_old = |max| worker.age() >= its_age(max, worker.pid().unwrap_or_default());
        if has_started && pool.max_age.is_some_and(is_old) {
            return Some(Due::MaxAge);
        }
        if pool.max_rss.is_some_and(|max| worker.pid().and_then(|pid| memory.get(&pid)).is_some_and(|rss| *rss >= max))
        {
            return Some(Due::MaxRss);
        }
        let unused =
            !self.is_exclusive() && worker.idle_since().is_some_and(|since| since.elapsed() >= pool.idle_timeout);
        (unused && self.inventory.lock().shared_of(child).is_some()).then_some(Due::IdleTimeout)
    }
}

/// At what age a child is old: up to a tenth before `max_age`, as its process id says, which is another for each. Children
/// that were started together would all go together otherwise, and their successors for ever.
fn its_age(max_age: Duration, pid: u32) -> Duration {
    max_age - max_age / 640 * (pid % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_that_were_started_together_do_not_become_old_together() {
        let max = Duration::from_secs(6400);
        let ages: std::collections::BTreeSet<_> = (1000..1064).map(|pid| its_age(max, pid)).collect();
        assert_eq!(ages.len(), 64);
        assert_eq!((ages.first().copied(), ages.last().copied()), (Some(max - Duration::from_secs(630)), Some(max)));
    }
}
