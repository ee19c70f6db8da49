//! All pools of a gateway: one for each configured server, and those of earlier configurations that sessions still use.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::breaker::Broken;
use super::deployment::{Deployment, Deployments};
use super::pool::Pool;
use super::recycle::maintain;
use super::status::WorkerStatus;
use super::surroundings::Surroundings;
use crate::config::{Config, Contenders, Server, ServerName};
use crate::memory::Memory;
use crate::permits::Ceiling;
use crate::telemetry::Metrics;

/// All pools of a gateway: the current one of each server, and earlier ones that sessions or children still use.
pub struct Pools {
    surroundings: Surroundings,
    metrics: Arc<Metrics>,
    /// The pools of each server that sessions or children still use, the latest last.
    pools: Mutex<BTreeMap<ServerName, Vec<Weak<Pool>>>>,
}

impl Pools {
    /// No pools yet.
    pub fn new(metrics: Arc<Metrics>, surroundings: Surroundings) -> Self {
        Self { surroundings, metrics, pools: Mutex::default() }
    }

    /// The budget of bytes that all of the gateway shares.
    pub const fn memory(&self) -> &Memory {
        &self.surroundings.memory
    }

    /// Deploys the servers of a configuration, and puts in force its memory budget, the limits of its tenants, and
    /// what each has of what they share. A server that `current` has with the same configuration keeps its deployment.
    /// Any other gets a new pool; the pool that it had serves the sessions it has, under the same ceiling, and starts no
    /// spares any more.
    pub fn deploy(&self, config: &Config, current: &Deployments) -> Deployments {
        self.surroundings.memory.set_limit(config.memory_budget);
        self.surroundings.ceilings.replace(&config.tenants);
        self.surroundings.children.set_idle_timeout(config.sessions.child_idle_timeout);
        self.surroundings.permits.contend(Contenders::of(config));
        let is_kept = |old: &Deployment| config.servers.get(&old.server.name).is_some_and(|new| *new == old.server);
        current.values().filter(|old| !is_kept(old)).for_each(|old| old.pool.supersede());
        let deployed = |(name, server): (&ServerName, &Arc<Server>)| {
            let kept = current.get(name).filter(|old| is_kept(old)).map(Arc::clone);
            (name.clone(), kept.unwrap_or_else(|| Arc::new(self.start(server))))
        };
        config.servers.iter().map(deployed).collect()
    }

    /// Makes and registers a pool, and starts the task that keeps its spares and recycles its children.
    fn start(&self, server: &Arc<Server>) -> Deployment {
        let stop = self.surroundings.draining.child_token();
        let metrics = self.metrics.server(server.name.as_str());
        let surroundings = Surroundings { draining: stop.clone(), ..self.surroundings.clone() };
        let pool = Pool::new(Arc::clone(server), metrics.clone(), surroundings);
        self.surroundings.tasks.spawn(maintain(Arc::clone(&pool), stop.clone()));
        let mut pools = self.pools.lock();
        let of_server = pools.entry(server.name.clone()).or_default();
        of_server.retain(|pool| pool.strong_count() > 0);
        of_server.push(Arc::downgrade(&pool));
        Deployment { server: Arc::clone(server), pool, metrics, _stop: stop.drop_guard() }
    }

    /// The pools that sessions or children still use.
    fn all(&self) -> Vec<Arc<Pool>> {
        self.pools.lock().values().flatten().filter_map(Weak::upgrade).collect()
    }

    /// A line for operators about each open or half-open circuit: the server, the tenant, and for an open one the time
    /// until the next attempt.
    pub fn crash_loops(&self) -> Vec<String> {
        self.all().iter().flat_map(|pool| pool.crash_loops()).collect()
    }

    /// The state of all children that have not ended.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let children = self.all().into_iter().flat_map(|pool| pool.inventory.lock().children.clone());
        children.map(|child| WorkerStatus::of(&child.worker)).collect()
    }

    /// The state of the children that ended last: 20 of each pool, the latest first.
    pub fn exited(&self) -> Vec<WorkerStatus> {
        self.all().iter().flat_map(|pool| pool.inventory.lock().exited.clone()).collect()
    }

    /// Sets the gauges of all servers: children by phase, circuits, waiting requests and spares.
    pub fn measure(&self, metrics: &Metrics) {
        for (name, pools) in &*self.pools.lock() {
            let pools: Vec<_> = pools.iter().filter_map(Weak::upgrade).collect();
            let children: Vec<_> = pools.iter().flat_map(|pool| pool.inventory.lock().children.clone()).collect();
            let count = |phase: &str| children.iter().filter(|child| child.worker.phase().as_str() == phase).count();
            for phase in ["starting", "ready", "busy", "draining"] {
                metrics.workers(name.as_str(), phase, count(phase));
            }
            let broken: Vec<_> = pools.iter().flat_map(|pool| pool.breaker.broken(Instant::now())).collect();
            let open = broken.iter().filter(|(_, broken)| matches!(broken, Broken::Open(_))).count();
            metrics.circuits(name.as_str(), open, broken.len() - open);
            let spares = pools.iter().map(|pool| pool.inventory.lock().spares.len()).sum();
            // All pools of a server have one ceiling, and the requests that wait under it.
            let is_here = |ceiling: &Ceiling| matches!(ceiling, Ceiling::InUse(at) | Ceiling::Server(at) if at == name);
            let queued = self.surroundings.permits.waiting(|full| is_here(&full.ceiling));
            metrics.pool(name.as_str(), queued, spares);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::permits::{Claimant, Permits};
    use crate::pool::Children;
    use crate::process::{Ceilings, Guardian};

    impl Pools {
        /// Pools that can start no child.
        pub(crate) fn of_nobody() -> Self {
            let guardian = Guardian::of_nobody();
            let metrics = Arc::<Metrics>::default();
            let surroundings = Surroundings {
                ceilings: Ceilings::new([], &guardian, metrics.watch_failures.clone()),
                guardian,
                slow_client_timeout: Duration::from_secs(1),
                spawn_concurrency: 1,
                permits: Permits::default(),
                memory: Memory::new(1 << 30),
                children: Children::default(),
                tasks: TaskTracker::new(),
                draining: CancellationToken::new(),
                kill: CancellationToken::new(),
            };
            Self::new(metrics, surroundings)
        }
    }

    #[tokio::test]
    async fn a_request_that_waits_counts_once_however_many_pools_its_server_has() {
        let pools = Pools::of_nobody();
        let mut server = Server::new("s".parse().unwrap(), "nothing", Vec::new());
        server.pool.max_children = 1;
        let before = pools.deploy(&Config::for_servers([server.clone()]), &Deployments::default());
        server.args.push("other".to_owned());
        let after = pools.deploy(&Config::for_servers([server]), &before);
        assert_eq!(pools.all().len(), 2);
        let pool = &after.values().next().unwrap().pool;
        let (permits, limits) = (&pools.surroundings.permits, pool.limits(None));
        let nobody = Claimant::nobody();
        let _taken = permits.try_claim(&nobody, &limits).unwrap();
        let waits = permits.claim(&nobody, &limits, Duration::from_secs(60));
        tokio::select! {
            biased;
            _ = waits => panic!("there is no room"),
            () = async { pools.measure(&pools.metrics) } => {}
        }
        let text = pools.metrics.render().unwrap();
        assert!(text.contains("sluice_pool_queue{server=\"s\"} 1\n"), "{text}");
    }
}
