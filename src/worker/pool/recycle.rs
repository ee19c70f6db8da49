//! Children that have served long enough are replaced, and never in the middle of a call.

use std::collections::HashMap;
use std::time::Duration;

use super::Pool;
use crate::worker::handle::Worker;

/// How often children are looked at.
pub(super) const TICK: Duration = Duration::from_millis(500);

impl Pool {
    /// Stops what is over its limits, or shared and unused, as soon as nothing is in flight on it.
    pub(super) fn recycle(&self) {
        let workers = self.shelf.lock().workers.clone();
        let memory = match self.server.pool.max_rss {
            Some(_) => crate::process::memory_of_groups(),
            None => HashMap::new(),
        };
        for worker in workers.iter().filter(|worker| worker.is_alive()) {
            let why = self.reason_to_recycle(worker, &memory);
            if let Some(why) = why {
                self.shelf.lock().retire(worker);
                if worker.stop_if_idle() {
                    tracing::info!(server = %self.server.name, pid = worker.pid(), why, "child recycled");
                }
            }
        }
    }

    fn reason_to_recycle(&self, worker: &Worker, memory: &HashMap<u32, usize>) -> Option<&'static str> {
        let pool = &self.server.pool;
        if pool.max_requests.is_some_and(|max| worker.calls() >= max as u64) {
            return Some("pool.max_requests");
        }
        if pool.max_age.is_some_and(|max| worker.age() >= max) {
            return Some("pool.max_age");
        }
        if pool.max_rss.is_some_and(|max| worker.pid().and_then(|pid| memory.get(&pid)).is_some_and(|rss| *rss >= max))
        {
            return Some("pool.max_rss");
        }
        let unused =
            !self.is_exclusive() && worker.idle_since().is_some_and(|since| since.elapsed() >= pool.idle_timeout);
        (unused && self.shelf.lock().is_member(worker)).then_some("pool.idle_timeout")
    }
}
