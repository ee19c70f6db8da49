//! All pools of a gateway: one for each configured server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Pool;
use super::breaker::Broken;
use super::permits::Permits;
use super::status::WorkerStatus;
use crate::config::{Server, ServerName};
use crate::process::{Ceilings, Guardian};
use crate::telemetry::Metrics;

/// What all pools of a gateway share; cheap to clone.
#[derive(Clone)]
pub struct Surroundings {
    /// The guardian, which starts children.
    pub guardian: Guardian,
    /// The limits that the children of a tenant have together.
    pub ceilings: Ceilings,
    /// The capacity for children and starts that is taken.
    pub permits: Permits,
    /// The longest time that a client may read nothing before its stream is cut.
    pub slow_client_timeout: Duration,
    /// The number of starts under way at the same time, over all servers. Spares get half of them.
    pub spawn_concurrency: usize,
    /// The tasks that a shutdown waits for.
    pub tasks: TaskTracker,
    /// Cancelled at shutdown: children end, and no more are started.
    pub draining: CancellationToken,
    /// Cancelled when children that are stopping are to be killed.
    pub kill: CancellationToken,
}

/// The pools of a gateway, by server.
pub struct Pools(HashMap<ServerName, Arc<Pool>>);

impl Pools {
    /// Makes a pool for each server, and starts the task that keeps its spares and recycles its children.
    pub fn start<'a>(
        servers: impl Iterator<Item = &'a Arc<Server>>,
        metrics: &Arc<Metrics>,
        surroundings: &Surroundings,
    ) -> Self {
        let pools = servers.map(|server| {
            let metrics = metrics.server(server.name.as_str());
            let pool = Pool::new(Arc::clone(server), metrics, surroundings.clone());
            surroundings.tasks.spawn(Arc::clone(&pool).maintain(surroundings.draining.clone()));
            (server.name.clone(), pool)
        });
        Self(pools.collect())
    }

    /// The pool of a server.
    pub fn get(&self, server: &ServerName) -> Option<&Arc<Pool>> {
        self.0.get(server)
    }

    /// A line for operators about each open or half-open circuit: the server, the tenant, and the time of the next attempt.
    pub fn crash_loops(&self) -> Vec<String> {
        self.0.values().flat_map(|pool| pool.crash_loops()).collect()
    }

    /// The state of all children that have not ended.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.0
            .values()
            .flat_map(|pool| pool.inventory.lock().children.clone())
            .map(|child| WorkerStatus::of(&child.worker))
            .collect()
    }

    /// The state of the children that ended last: 20 of each server, the latest first.
    pub fn exited(&self) -> Vec<WorkerStatus> {
        self.0.values().flat_map(|pool| pool.inventory.lock().exited.clone()).collect()
    }

    /// Sets the gauges of the pools to their current values.
    pub fn measure(&self, metrics: &Metrics) {
        for pool in self.0.values() {
            let children = pool.inventory.lock().children.clone();
            let count = |phase: &str| children.iter().filter(|child| child.worker.phase().as_str() == phase).count();
            for phase in ["starting", "ready", "busy", "draining"] {
                metrics.workers(pool.server.name.as_str(), phase, count(phase));
            }
            let broken = pool.broken();
            let open = broken.iter().filter(|(_, broken)| matches!(broken, Broken::Open(_))).count();
            metrics.circuits(pool.server.name.as_str(), open, broken.len() - open);
            metrics.pool(pool.server.name.as_str(), pool.queued(), pool.inventory.lock().spares.len());
        }
    }
}
