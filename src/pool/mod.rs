//! The children of one server: who gets which, how many there are, and which wait in advance.
//!
//! Invariants: never more than `max_children`, spares and starting ones included; a child that has been leased never
//! moves to another session, principal or tenant than its isolation allows; a spare has been nobody's. (A session that has
//! never had an answer of its child has not had it: the next of the same client may.)

mod breaker;
mod breaker_permit;
mod child;
mod demand;
mod exclusive;
mod inventory;
mod permits;
mod pools;
mod recycle;
mod shared;
mod spares;
mod start;
mod status;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::auth::Principal;
use crate::config::{Isolation, PoolMode, Server};
use crate::process::Lookups;
use crate::process::sandbox::Reach;
use crate::telemetry::ServerMetrics;
use crate::worker::{Failure, Lease, Opening, Peer, protocol_version};
use breaker::Breaker;
pub use breaker::backoff;
use child::PooledWorker;
use inventory::{Inventory, Scope};
use permits::{Slots, Whose};
pub use pools::{Pools, Surroundings};
use start::SpawnRequest;
pub use status::WorkerStatus;

/// How long a session has its child to itself before the pool starts others: their start would slow its first calls down.
const HEAD_START: Duration = Duration::from_millis(50);

/// A session that needs a child.
pub struct Applicant {
    /// Whose it is.
    pub principal: Principal,
    /// The public part of its id, for the log.
    pub session: Arc<str>,
    /// Its client's `initialize` request.
    pub initialize: Bytes,
    /// Whether its client has had the answer to that already, from a child that is gone.
    pub is_replay: bool,
    /// Its leases whose workers are being replaced: the next worker may inherit the capacity of one.
    pub replaces: Vec<Arc<Lease>>,
    /// The session itself.
    pub peer: Weak<dyn Peer>,
}

/// A child for a session.
pub struct Granted {
    /// What to send with.
    pub lease: Arc<Lease>,
    /// The answer to `initialize`, under whatever id. It may be an error: then the child is of no use.
    pub answer: Bytes,
}

/// The children of one server.
pub struct Pool {
    server: Arc<Server>,
    /// What is open to its children, all of them.
    reach: Arc<Reach>,
    /// Those that look its program up.
    lookups: Lookups,
    surroundings: Surroundings,
    metrics: ServerMetrics,
    inventory: Mutex<Inventory>,
    slots: Slots,
    /// In which children of all servers are started.
    turns: Slots,
    /// The circuits of tenants, and that of children which are nobody's: spares, and those that all tenants share.
    breaker: Breaker<Whose>,
    changed: Notify,
    this: Weak<Self>,
}

impl Pool {
    fn new(server: Arc<Server>, metrics: ServerMetrics, surroundings: Surroundings, turns: Slots) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            turns,
            slots: Slots::new(server.pool.max_children),
            breaker: Breaker::new(server.restart),
            reach: Arc::default(),
            lookups: Lookups::default(),
            inventory: Mutex::default(),
            changed: Notify::new(),
            this: this.clone(),
            server,
            surroundings,
            metrics,
        })
    }

    fn is_exclusive(&self) -> bool {
        self.server.isolation == Isolation::Session
    }

    fn scope(&self, applicant: &Applicant) -> Scope {
        match self.server.isolation {
            Isolation::Session => Scope::Session,
            Isolation::Principal => Scope::Principal(applicant.principal.clone()),
            Isolation::Tenant => Scope::Tenant(applicant.principal.tenant().clone()),
            Isolation::Shared => Scope::Everybody,
        }
    }

    /// A child for a session: one that is shared, a spare one, or a new one.
    ///
    /// # Errors
    /// The child does not start, the pool is full, or the server keeps crashing.
    pub async fn lease(&self, applicant: &Applicant) -> Result<Granted, Failure> {
        let result = match self.is_exclusive() {
            true => self.lease_exclusive(applicant).await,
            false => self.lease_shared(applicant).await,
        };
        if result.as_ref().is_ok_and(|granted| protocol_version(&granted.answer).is_some())
            && self.server.pool.mode != PoolMode::Ondemand
            && let Some(opening) = Opening::of_spare(&applicant.initialize, !self.is_exclusive())
        {
            self.inventory.lock().demand.note(opening, Instant::now());
        }
        self.changed.notify_one();
        result
    }

    /// Puts `initialize` to a child that has not heard one.
    async fn open(&self, child: &PooledWorker, lease: &Lease, message: &[u8]) -> Result<Bytes, Failure> {
        let answer = child.worker.open(lease, message).await?;
        let (whose, permit) = (child.worker.tenant(), child.permit());
        if protocol_version(&answer).is_some() {
            self.breaker.opened(&whose, permit);
        } else {
            self.breaker.abandoned(&whose, permit);
        }
        Ok(answer)
    }

    /// Keeps spares and recycles children, until it is stopped.
    pub(super) async fn maintain(self: Arc<Self>, stop: CancellationToken) {
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
                self.recycle().await;
            }
            if self.slots.queued() > 0 {
                // What was in use when they began to wait may be no more.
                self.inventory.lock().make_room(self.slots.queued());
            }
            self.replenish();
        }
        self.inventory.lock().stop_all();
    }
}
