//! All pools of the gateway, and what they have in common.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Pool;
use super::breaker::Broken;
use super::permits::Slots;
use super::status::WorkerStatus;
use crate::config::{Server, ServerName};
use crate::process::{Ceilings, Guardian};
use crate::telemetry::Metrics;

/// What all pools have in common.
#[derive(Clone)]
pub struct Surroundings {
    /// What starts children.
    pub guardian: Guardian,
    /// What the children of a tenant may use together.
    pub ceilings: Ceilings,
    /// A client that takes nothing for this long is cut.
    pub slow_client_timeout: Duration,
    /// How many children are started at the same time.
    pub spawn_concurrency: usize,
    /// Permits for those of them that nobody waits for: fewer, so that the others come first.
    pub spawning_spares: Arc<Semaphore>,
    /// What waits for everything at shutdown.
    pub tasks: TaskTracker,
    /// Cancelled when no more children are wanted.
    pub draining: CancellationToken,
    /// Cancelled when there is no time left to stop politely.
    pub kill: CancellationToken,
}

/// All pools of the gateway.
pub struct Pools(HashMap<ServerName, Arc<Pool>>);

impl Pools {
    /// A pool for each server. Spares are started, a few at a time.
    pub fn start<'a>(
        servers: impl Iterator<Item = &'a Arc<Server>>,
        metrics: &Arc<Metrics>,
        surroundings: &Surroundings,
    ) -> Self {
        let turns = Slots::new(surroundings.spawn_concurrency);
        let pools = servers.map(|server| {
            let metrics = metrics.server(server.name.as_str());
            let pool = Pool::new(Arc::clone(server), metrics, surroundings.clone(), turns.clone());
            surroundings.tasks.spawn(Arc::clone(&pool).maintain(surroundings.draining.clone()));
            (server.name.clone(), pool)
        });
        Self(pools.collect())
    }

    /// The pool of a server.
    pub fn get(&self, server: &ServerName) -> Option<&Arc<Pool>> {
        self.0.get(server)
    }

    /// The servers that are left alone because they keep crashing, or are just tried again: for whom, and until when.
    pub fn crash_loops(&self) -> Vec<String> {
        self.0.values().flat_map(|pool| pool.crash_loops()).collect()
    }

    /// All children that are there.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.0
            .values()
            .flat_map(|pool| pool.inventory.lock().children.clone())
            .map(|child| WorkerStatus::of(&child.worker))
            .collect()
    }

    /// The last children of each server that have ended, the latest first.
    pub fn exited(&self) -> Vec<WorkerStatus> {
        self.0.values().flat_map(|pool| pool.inventory.lock().exited.clone()).collect()
    }

    /// Brings the gauges of the pools up to date.
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
            metrics.pool(pool.server.name.as_str(), pool.slots.queued(), pool.inventory.lock().spares.len());
        }
    }
}
