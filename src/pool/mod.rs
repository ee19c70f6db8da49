//! The pool of a server: it leases workers to callers, bounds their number, keeps spares, and replaces children that are due
//! or have crashed.
//!
//! Invariants: a server never has more than `pool.max_children` children, spares and starting ones included; a leased child
//! serves only the principals that its isolation allows; a spare has served nobody. (A caller that leaves before its child has
//! answered `initialize` has not had the child: the next caller of the same client may.)

mod breaker;
mod breaker_permit;
mod child;
mod demand;
mod deployment;
mod exclusive;
mod inventory;
mod permits;
mod pools;
mod recycle;
mod shared;
mod spares;
mod start;
mod status;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::auth::Principal;
use crate::config::{Isolation, PoolMode, Server};
use crate::mcp::protocol_version;
use crate::process::Lookups;
use crate::process::sandbox::Reach;
use crate::telemetry::ServerMetrics;
use crate::worker::{Failure, Lease, LeaseHolder, Opening};
pub use breaker::backoff;
use breaker::{Breaker, Broken};
use child::PooledWorker;
pub use deployment::{Deployment, Deployments};
use inventory::{Inventory, Scope};
pub use permits::Permits;
use permits::TenantKey;
pub use pools::{Pools, Surroundings};
use start::SpawnRequest;
pub use status::WorkerStatus;

/// The pause between a lease and the start of spares: a start takes processor time from the first calls of the lease.
const HEAD_START: Duration = Duration::from_millis(50);

/// A caller's request for a lease.
pub struct Wanted {
    /// The principal that the child works for.
    pub principal: Principal,
    /// The caller's name for log lines, such as the public part of a session's id.
    pub caller: Arc<str>,
    /// The client's `initialize` request. With `None` the child hears no `initialize`, as a stateless request needs it.
    pub initialize: Option<Bytes>,
    /// Whether the caller has leased a child before, which is gone or going. Its client knows the answer to `initialize`.
    pub is_restart: bool,
    /// The caller's leases whose workers are being replaced: the new worker may inherit the capacity of one.
    pub replaces: Vec<Arc<Lease>>,
    /// The receiver of what the server sends unasked, such as requests and notifications.
    pub holder: Weak<dyn LeaseHolder>,
}

/// A lease that a pool has granted.
pub struct Granted {
    /// The lease, which sends messages to the child.
    pub lease: Arc<Lease>,
    /// The child's answer to `initialize`, whatever its id; `None` if the request had no `initialize`. If the answer is an
    /// error, the child is of no use.
    pub answer: Option<Bytes>,
}

/// The children of one server.
pub struct Pool {
    server: Arc<Server>,
    /// The paths that the sandbox opens to all children of this server.
    reach: Arc<Reach>,
    /// The bounded look-ups of the server's program and working directory.
    lookups: Lookups,
    surroundings: Surroundings,
    metrics: ServerMetrics,
    inventory: Mutex<Inventory>,
    /// A circuit for each tenant, and one for spares and for children that all tenants share.
    breaker: Breaker<TenantKey>,
    /// Notified when the number of spares may have to change.
    changed: Notify,
    /// Whether new sessions get another pool, because the configuration of the server has changed.
    is_superseded: AtomicBool,
    this: Weak<Self>,
}

impl Pool {
    fn new(server: Arc<Server>, metrics: ServerMetrics, surroundings: Surroundings) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            breaker: Breaker::new(server.restart),
            reach: Arc::default(),
            lookups: Lookups::default(),
            inventory: Mutex::default(),
            changed: Notify::new(),
            is_superseded: AtomicBool::new(false),
            this: this.clone(),
            server,
            surroundings,
            metrics,
        })
    }

    /// New sessions get another pool from now on. This one stops what no session uses.
    fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// How long a child may be unused that a client may come for.
    fn idle_timeout(&self) -> Duration {
        if self.is_superseded.load(Ordering::Relaxed) { Duration::ZERO } else { self.server.pool.idle_timeout }
    }

    /// Whether each lease of this server has a worker of its own.
    fn is_exclusive(&self) -> bool {
        self.server.isolation == Isolation::Session
    }

    /// The principals that may share a worker with this one.
    fn scope(&self, principal: &Principal) -> Scope {
        match self.server.isolation {
            Isolation::Session => Scope::Exclusive,
            Isolation::Principal => Scope::Principal(principal.clone()),
            Isolation::Tenant => Scope::Tenant(principal.tenant().clone()),
            Isolation::Shared => Scope::Everybody,
        }
    }

    /// Requests that wait because the server has all its children, whichever of its pools they ask.
    fn queued(&self) -> usize {
        self.surroundings.permits.waiting_for(&self.ceiling())
    }

    /// Whether the pool has all the children that it may have.
    fn is_full(&self) -> bool {
        self.surroundings.permits.full(&self.limits(None)).is_some()
    }

    /// Leases a worker: one that is shared, a spare, or a new one.
    ///
    /// # Errors
    /// The child does not start, there is no capacity in time, or the server keeps crashing.
    pub async fn lease(&self, wanted: &Wanted) -> Result<Granted, Failure> {
        let result = match self.is_exclusive() {
            true => exclusive::lease(self, wanted).await,
            false => shared::lease(self, wanted).await,
        };
        let answer = result.as_ref().ok().and_then(|granted| granted.answer.as_ref());
        if self.server.pool.mode != PoolMode::Ondemand
            && answer.is_some_and(|answer| protocol_version(answer).is_some())
            && let Some(initialize) = &wanted.initialize
            && let Some(opening) = Opening::of_spare(initialize, !self.is_exclusive())
        {
            self.inventory.lock().demand.note(opening, Instant::now());
        }
        self.changed.notify_one();
        result
    }

    /// Sends `initialize` to a child, and tells the breaker whether the answer has a protocol version.
    async fn open(&self, child: &PooledWorker, lease: &Lease, message: &[u8]) -> Result<Bytes, Failure> {
        let answer = lease.open(message).await?;
        let (tenant, permit) = (child.worker.tenant(), child.permit());
        if protocol_version(&answer).is_some() {
            self.breaker.opened(&tenant, permit);
        } else {
            self.breaker.abandoned(&tenant, permit);
        }
        Ok(answer)
    }

    /// Keeps the spares and recycles children until `stop` is cancelled, and then stops every child.
    async fn maintain(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval_at(Instant::now() + recycle::TICK, recycle::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_tick = async || {
            tokio::select! {
                () = self.changed.notified() => {
                    tokio::time::sleep(HEAD_START).await;
                    false
                }
                _ = ticks.tick() => true,
            }
        };
        while let Some(is_tick) = stop.run_until_cancelled(is_tick()).await {
            if is_tick {
                recycle::recycle(&self).await;
            }
            // A child that was in use when a request began to wait may be unused by now. Of the pools of one server, the latest
            // alone makes room for those that wait: the others keep nothing unused anyway.
            let queued = if self.is_superseded.load(Ordering::Relaxed) { 0 } else { self.queued() };
            if queued > 0 {
                self.inventory.lock().make_room(queued);
            }
            spares::replenish(&self);
        }
        self.inventory.lock().stop_all();
    }

    /// The circuits of this server that are open or half-open, by tenant.
    fn broken(&self) -> Vec<(TenantKey, Broken)> {
        self.breaker.broken(Instant::now())
    }

    /// A line for operators about each circuit that is open or half-open.
    fn crash_loops(&self) -> Vec<String> {
        let name = &self.server.name;
        let who = |tenant: TenantKey| match tenant {
            Some(tenant) => format!("{name} for {tenant}"),
            None if self.server.isolation == Isolation::Shared => format!("{name}, for all"),
            None => format!("{name}, its spares"),
        };
        let says = |(tenant, broken)| match broken {
            Broken::Open(left) => format!("crash loop: {}, next attempt in {:.1} s", who(tenant), left.as_secs_f64()),
            Broken::HalfOpen => format!("half-open: {}, the next attempt decides", who(tenant)),
        };
        self.broken().into_iter().map(says).collect()
    }

    /// Calls of clients that the living children of a tenant have answered.
    fn answered_for(&self, tenant: &TenantKey) -> u64 {
        let inventory = self.inventory.lock();
        let theirs = inventory.children.iter().filter(|child| child.worker.tenant() == *tenant);
        theirs.map(|child| child.worker.answered()).sum()
    }
}
