//! The children of one server: who gets which, how many there are, and which wait in advance.
//!
//! Invariants: never more than `max_children`, spares and starting ones included; a child that has been leased never
//! moves to another session, principal or tenant than its isolation allows; a spare has been nobody's.

mod member;
mod pools;
mod recycle;
mod slots;
mod spares;

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::handle::Worker;
use super::lease::Lease;
use super::opening::{Fingerprint, Opening, protocol_version};
use super::peer::Peer;
use super::restart::{Admission, Breaker, is_crash};
use super::supervisor::{Spec, spawn};
use crate::auth::Principal;
use crate::config::{Isolation, Server, TenantId};
use crate::process::Origin;
use crate::telemetry::ServerMetrics;
use member::{Member, Scope, Shelf};
pub use pools::{Pools, Surroundings, WorkerStatus};
use slots::{Slot, Slots};

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
    /// The session itself.
    pub peer: Weak<dyn Peer>,
}

/// A child for a session.
pub struct Granted {
    /// What to send with.
    pub lease: Lease,
    /// The answer to `initialize`, under whatever id. It may be an error: then the child is of no use.
    pub answer: Bytes,
}

/// An attempt to start a child, which a half-open circuit waits for.
struct Attempt<'a> {
    breaker: &'a Breaker<TenantId>,
    tenant: Option<&'a TenantId>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.tenant.inspect(|tenant| self.breaker.abandoned(tenant));
    }
}

/// The children of one server.
pub struct Pool {
    server: Arc<Server>,
    surroundings: Surroundings,
    metrics: ServerMetrics,
    shelf: Mutex<Shelf>,
    slots: Slots,
    breaker: Breaker<TenantId>,
    changed: Notify,
    this: Weak<Self>,
}

impl Pool {
    pub(super) fn new(server: Arc<Server>, metrics: ServerMetrics, surroundings: Surroundings) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            slots: Slots::new(server.pool.max_children),
            breaker: Breaker::new(server.restart),
            shelf: Mutex::default(),
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
        let result =
            if self.is_exclusive() { self.lease_own(applicant).await } else { self.lease_shared(applicant).await };
        if result.is_ok() {
            self.shelf.lock().wanted = Some(applicant.initialize.clone());
        }
        self.changed.notify_one();
        result
    }

    async fn lease_own(&self, applicant: &Applicant) -> Result<Granted, Failure> {
        let opening = Opening::of_client(&applicant.initialize);
        let worker = self.obtain(applicant, &opening.fingerprint, &applicant.session).await?;
        let lease = Lease::new(worker.clone(), applicant.peer.clone(), true);
        let answer = match worker.opened() {
            Some(answer) => answer.clone(),
            None => self.open(&worker, &lease, &opening.message, applicant.principal.tenant()).await?,
        };
        Ok(Granted { lease, answer })
    }

    /// A child for the applicant's tenant, under its ceiling: a spare one, or a new one.
    async fn obtain(&self, applicant: &Applicant, fingerprint: &Fingerprint, session: &str) -> Result<Worker, Failure> {
        let (tenant, ceilings) = (applicant.principal.tenant(), &self.surroundings.ceilings);
        let place = ceilings.place(tenant, self.server.pool.queue_timeout).await;
        let place = place.map_err(|full| Failure::tenant_full(&self.server.name, &full))?;
        let spare = ceilings.takes_spares(tenant).then(|| self.shelf.lock().take_spare(fingerprint)).flatten();
        let worker = match spare {
            Some(spare) => spare,
            None => self.start(applicant).await?,
        };
        worker.adopt(tenant, session, place);
        Ok(worker)
    }

    /// A child that is nobody's: a spare one, or a new one.
    async fn obtain_shared(&self, applicant: &Applicant, fingerprint: &Fingerprint) -> Result<Worker, Failure> {
        let spare = self.shelf.lock().take_spare(fingerprint);
        match spare {
            Some(spare) => Ok(spare),
            None => self.start(applicant).await,
        }
    }

    async fn open(&self, worker: &Worker, lease: &Lease, message: &[u8], tenant: &TenantId) -> Result<Bytes, Failure> {
        let answer = worker.open(lease, message).await?;
        if protocol_version(&answer).is_some() {
            self.breaker.opened(tenant);
        } else {
            self.breaker.abandoned(tenant);
        }
        Ok(answer)
    }

    async fn lease_shared(&self, applicant: &Applicant) -> Result<Granted, Failure> {
        let opening = Opening::of_gateway(&applicant.initialize, true);
        let scope = self.scope(applicant);
        loop {
            let (member, is_new) = {
                let mut shelf = self.shelf.lock();
                match shelf.least_busy(&scope, &opening.fingerprint, self.replicas()) {
                    Some(member) => (member, false),
                    None => (shelf.add(scope.clone(), opening.fingerprint.clone()), true),
                }
            };
            if is_new {
                self.open_member(&member, applicant, &opening);
            }
            let mut outcome = member.outcome.subscribe();
            let opened = match outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) {
                Some(Ok(worker)) => worker,
                Some(Err(failure)) => return Err(failure),
                None => return Err(Failure::stopped(&self.server.name)),
            };
            let lease = Lease::new(opened.clone(), applicant.peer.clone(), false);
            // It may have been retired between the choice and the lease: then another one is chosen.
            if let (true, Some(answer)) = (lease.is_alive(), opened.opened()) {
                return Ok(Granted { lease, answer: answer.clone() });
            }
            self.shelf.lock().remove(&member);
        }
    }

    fn replicas(&self) -> usize {
        if self.server.isolation == Isolation::Shared { self.server.pool.replicas } else { 1 }
    }

    /// Starts and opens a child that several will share, off the path of whoever asked first.
    fn open_member(&self, member: &Arc<Member>, applicant: &Applicant, opening: &Opening) {
        let Some(this) = self.this.upgrade() else { return };
        let (member, message) = (Arc::clone(member), opening.message.clone());
        let applicant = Applicant {
            principal: applicant.principal.clone(),
            session: Arc::clone(&applicant.session),
            initialize: applicant.initialize.clone(),
            is_replay: applicant.is_replay,
            peer: applicant.peer.clone(),
        };
        let fingerprint = opening.fingerprint.clone();
        self.surroundings.tasks.spawn(async move {
            let outcome = this.start_shared(&applicant, &message, &fingerprint).await;
            if outcome.is_err() {
                this.shelf.lock().remove(&member);
            }
            member.outcome.send_replace(Some(outcome));
        });
    }

    async fn start_shared(
        &self,
        applicant: &Applicant,
        message: &[u8],
        fingerprint: &Fingerprint,
    ) -> Result<Worker, Failure> {
        let worker = match self.server.isolation {
            Isolation::Shared => self.obtain_shared(applicant, fingerprint).await?,
            Isolation::Session | Isolation::Principal | Isolation::Tenant => {
                self.obtain(applicant, fingerprint, "-").await?
            }
        };
        if worker.opened().is_none() {
            // A session that is nobody's: it opens the child, and is gone.
            let nobody: Weak<dyn Peer> = Weak::<crate::worker::peer::Nobody>::new();
            let lease = Lease::new(worker.clone(), nobody, false);
            let answer = self.open(&worker, &lease, message, applicant.principal.tenant()).await?;
            if worker.opened().is_none() {
                worker.stop();
                return Err(Failure::refused_by_server(&self.server.name, &answer));
            }
        }
        Ok(worker)
    }

    /// Starts a new child under the ceiling, as soon as the circuit breaker lets it.
    async fn start(&self, applicant: &Applicant) -> Result<Worker, Failure> {
        let tenant = applicant.principal.tenant();
        let pause = match self.breaker.admit(tenant, Instant::now()) {
            Admission::After(pause) => pause,
            Admission::Refused(retry) => return Err(Failure::crash_loop(&self.server.name, retry)),
        };
        // Whoever leaves before there is a child has tried nothing.
        let mut attempt = Attempt { breaker: &self.breaker, tenant: Some(tenant) };
        tokio::time::sleep(pause).await;
        let slot = match self.slots.try_take() {
            Some(slot) => slot,
            None => self.wait_for_slot(tenant).await?,
        };
        if applicant.is_replay {
            self.metrics.restarts.inc();
        }
        let origin = match self.server.isolation {
            // It counts for nobody, whoever has asked for it first.
            Isolation::Shared => Origin::unowned(&self.server.name),
            _ => Origin::new(tenant, &self.server.name, &applicant.session),
        };
        let spawned = self.spawn(slot, origin, Some(tenant.clone())).await;
        attempt.tenant = None;
        spawned
    }

    /// The ceiling is reached: something that nobody uses makes room, or the session waits its turn.
    async fn wait_for_slot(&self, tenant: &TenantId) -> Result<Slot, Failure> {
        let before = Instant::now();
        self.shelf.lock().make_room();
        let pool = &self.server.pool;
        let slot = self.slots.take(tenant, pool.queue_timeout).await;
        slot.ok_or_else(|| Failure::pool_full(&self.server.name, pool.max_children, before.elapsed()))
    }

    /// Spawns a child, a few at a time over all servers, and watches over its end.
    async fn spawn(&self, slot: Slot, origin: Origin, tenant: Option<TenantId>) -> Result<Worker, Failure> {
        let stopped = || Failure::stopped(&self.server.name);
        let permit = Arc::clone(&self.surroundings.spawning).acquire_owned().await.map_err(|_| stopped())?;
        let spec = Spec {
            guardian: self.surroundings.guardian.clone(),
            server: Arc::clone(&self.server),
            origin,
            ceilings: self.surroundings.ceilings.clone(),
            slow_client_timeout: self.surroundings.slow_client_timeout,
            metrics: self.metrics.clone(),
            tasks: self.surroundings.tasks.clone(),
            kill: self.surroundings.kill.clone(),
        };
        let worker = spawn(spec).await.map_err(|error| {
            if let Some(tenant) = &tenant {
                self.breaker.crashed(tenant, self.answered_for(tenant), Instant::now());
            }
            let failure = Failure::spawn(&self.server.name, &error);
            tracing::warn!(server = %self.server.name, "{}", failure.message());
            failure
        })?;
        self.shelf.lock().workers.push(worker.clone());
        if self.surroundings.draining.is_cancelled() {
            worker.stop();
        }
        if let Some(this) = self.this.upgrade() {
            let watched = worker.clone();
            self.surroundings.tasks.spawn(async move {
                this.watch(watched, slot, tenant, permit).await;
            });
        }
        Ok(worker)
    }

    async fn watch(
        &self,
        worker: Worker,
        slot: Slot,
        tenant: Option<TenantId>,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) {
        // The start is over when the child has answered `initialize`, is leased and busy otherwise, or has ended: until
        // then it counts as one that is being started.
        tokio::select! {
            () = worker.settled() => {}
            _ = worker.ended() => {}
        }
        drop(permit);
        let reason = worker.ended().await;
        self.shelf.lock().forget(&worker);
        if let Some(tenant) = tenant.or_else(|| worker.shared().origin.tenant()) {
            self.breaker.ended(&tenant, worker.answered());
            match reason.is_some_and(is_crash) {
                true => self.breaker.crashed(&tenant, self.answered_for(&tenant), Instant::now()),
                false => self.breaker.abandoned(&tenant),
            }
        }
        drop(slot);
        self.changed.notify_one();
    }

    /// Calls that the children of a tenant have answered which are alive.
    fn answered_for(&self, tenant: &TenantId) -> u64 {
        let shelf = self.shelf.lock();
        let theirs = |worker: &&Worker| worker.shared().origin.tenant().as_ref() == Some(tenant);
        shelf.workers.iter().filter(theirs).map(Worker::answered).sum()
    }

    /// Keeps spares and recycles children, until it is stopped.
    pub(super) async fn maintain(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(recycle::TICK) => {}
            }
            self.recycle();
            if self.slots.queued() > 0 {
                // What was in use when they began to wait may be no more.
                self.shelf.lock().make_room();
            }
            self.replenish();
        }
        self.shelf.lock().stop_all();
    }
}
