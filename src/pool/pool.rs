//! The state of one pool, and the questions that all its jobs (leases, starts, spares, recycling) ask of that state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::breaker::{Breaker, Broken, PermitId};
use super::holder::TenantKey;
use super::inventory::Inventory;
use super::surroundings::Surroundings;
use crate::config::{Isolation, Server, TenantId};
use crate::memory::Account;
use crate::permits::{By, Ceiling, Full, Limit};
use crate::process::sandbox::Reach;
use crate::telemetry::ServerMetrics;
use crate::worker::{Audience, Failure, Payer};

/// The children of one server.
pub struct Pool {
    pub(super) server: Arc<Server>,
    /// The paths that the sandbox opens to all children of this server.
    pub(super) reach: Arc<Reach>,
    /// What all pools share. `draining` is the pool's own: it is cancelled as well when the pool is no longer deployed.
    pub(super) surroundings: Surroundings,
    pub(super) metrics: ServerMetrics,
    pub(super) inventory: Mutex<Inventory>,
    /// A circuit for each tenant, and one for spares and for children that all tenants share.
    pub(super) breaker: Breaker<TenantKey>,
    /// Notified when the number of spares may have to change.
    pub(super) changed: Notify,
    /// Whether another pool serves new sessions, because the configuration of the server has changed.
    pub(super) is_superseded: AtomicBool,
    this: Weak<Self>,
}

impl Pool {
    /// A pool without children. Nothing maintains the pool yet.
    pub(super) fn new(server: Arc<Server>, metrics: ServerMetrics, surroundings: Surroundings) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            breaker: Breaker::new(server.restart),
            reach: Arc::default(),
            inventory: Mutex::default(),
            changed: Notify::new(),
            is_superseded: AtomicBool::new(false),
            this: this.clone(),
            server,
            surroundings,
            metrics,
        })
    }

    /// Notes that another pool serves new sessions from now on. This pool then stops all children that no session uses.
    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// How long the pool keeps an unused child: `pool.idle_timeout`, or no time once the pool is superseded.
    pub(super) fn idle_timeout(&self) -> Duration {
        if self.is_superseded.load(Ordering::Relaxed) { Duration::ZERO } else { self.server.pool.idle_timeout }
    }

    /// Whether each lease of this server has a worker of its own.
    pub(super) fn is_exclusive(&self) -> bool {
        self.server.isolation == Isolation::Session
    }

    /// The sessions that a child of this server is for.
    pub(super) fn audience(&self) -> Audience {
        match self.server.isolation {
            Isolation::Session => Audience::Session,
            Isolation::Principal => Audience::Principal,
            Isolation::Tenant | Isolation::Shared => Audience::Several,
        }
    }

    /// The ceiling over the children of this server, which all pools of the server share.
    pub(super) fn ceiling(&self) -> Ceiling {
        Ceiling::Server(self.server.name.clone())
    }

    /// The account that the children of a tenant are charged to, or those that belong to no tenant.
    pub(super) fn account(&self, tenant: Option<&TenantId>) -> Account {
        let memory = &self.surroundings.memory;
        tenant.map_or_else(|| memory.server(self.server.name.as_str()), |tenant| memory.tenant(tenant.as_str()))
    }

    /// Charges the record of one more child of a tenant, or of none.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn payer(&self, tenant: Option<&TenantId>) -> Result<Payer, Failure> {
        Payer::new(&self.account(tenant)).map_err(|why| Failure::no_room_for_child(&self.server.name, why))
    }

    /// The ceilings that one more child in use counts under, for a tenant or for all. A tenant without a limit has its
    /// children counted as well: a limit of a later configuration holds for those that run by then.
    pub(super) fn limits(&self, tenant: Option<&TenantId>) -> Vec<Limit> {
        let of_tenant = |tenant: &TenantId| {
            let most = self.surroundings.ceilings.max_children(tenant).unwrap_or(usize::MAX);
            (Ceiling::Tenant(tenant.clone()), most)
        };
        let in_use = (Ceiling::InUse(self.server.name.clone()), self.server.pool.max_children);
        tenant.map(of_tenant).into_iter().chain([in_use, self.place()]).collect()
    }

    /// The only ceiling that a spare counts under.
    pub(super) fn place(&self) -> Limit {
        (self.ceiling(), self.server.pool.max_children)
    }

    /// Whether a claim finds no room because the server has all its children. Not so if the claimant alone has as many
    /// as it may.
    pub(super) fn has_all(&self, full: &Full) -> bool {
        let is_here =
            matches!(&full.ceiling, Ceiling::InUse(name) | Ceiling::Server(name) if *name == self.server.name);
        is_here && full.by == By::All
    }

    /// Tells the breaker that the child of a permit has crashed, or did not start.
    pub(super) fn crashed(&self, tenant: &TenantKey, permit: PermitId) {
        let answered = {
            let inventory = self.inventory.lock();
            let theirs = inventory.children.iter().filter(|child| child.worker.tenant() == *tenant);
            theirs.map(|child| child.worker.answered()).sum()
        };
        self.breaker.crashed(tenant, permit, answered, Instant::now());
    }

    /// Spawns a job of this pool on the tasks that a shutdown waits for.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(&self, job: impl FnOnce(Arc<Self>) -> F) {
        if let Some(this) = self.this.upgrade() {
            self.surroundings.tasks.spawn(job(this));
        }
    }

    /// The failure of a request whose start was given up.
    pub(super) fn stopped(&self) -> Failure {
        Failure::stopped(&self.server.name)
    }

    /// A line for operators about each circuit that is open or half-open.
    pub(super) fn crash_loops(&self) -> Vec<String> {
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
        self.breaker.broken(Instant::now()).into_iter().map(says).collect()
    }
}
