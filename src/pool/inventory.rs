//! The inventory of a pool: shared workers, spares, starts under way, and every living child.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::child::PooledWorker;
use super::demand::Demand;
use super::exclusive::Starts;
use super::status::WorkerStatus;
use crate::auth::Principal;
use crate::config::TenantId;
use crate::worker::{Failure, Fingerprint, Opening};

/// Ended children that are remembered for operators, in each pool.
const EXITED: usize = 20;

/// The principals that may share a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// None: each lease has a worker of its own.
    Exclusive,
    /// One principal.
    Principal(Principal),
    /// All principals of a tenant.
    Tenant(TenantId),
    /// All principals of all tenants.
    Everybody,
}

/// A worker that several leases share, from the moment its start is wanted.
pub(super) struct SharedWorker {
    pub(super) scope: Scope,
    /// The `initialize` that the child is opened with; `None` for a child that hears none.
    pub(super) opening: Option<Opening>,
    /// The tenant of the first lease.
    pub(super) tenant: TenantId,
    /// The result of the start; `None` while the start is under way. All that want this worker wait here.
    pub(super) outcome: watch::Sender<Option<Result<Arc<PooledWorker>, Failure>>>,
    /// Requests that wait for the start, or are about to lease the worker.
    assigned: AtomicUsize,
}

/// A request's claim on a shared worker, counted as a user of the worker until the lease exists.
pub(super) struct Assigned(Arc<SharedWorker>);

/// A child that was started in advance and waits to be leased.
pub(super) struct Spare {
    pub(super) child: Arc<PooledWorker>,
    /// The compatibility key that the spare was opened for; `None` for a spare that has not heard `initialize`.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// All that one pool has.
#[derive(Default)]
pub(super) struct Inventory {
    shared: Vec<Arc<SharedWorker>>,
    pub(super) spares: Vec<Spare>,
    /// All children that have not ended, leased or spare.
    pub(super) children: Vec<Arc<PooledWorker>>,
    /// The children that ended last, at most [`EXITED`], the latest first.
    pub(super) exited: VecDeque<WorkerStatus>,
    /// Starts of exclusive workers whose `initialize` is not answered yet.
    pub(super) starts: Starts,
    /// Spares that are being started.
    pub(super) starting_spares: usize,
    /// The openings that clients ask for, which spares are started for.
    pub(super) demand: Demand,
}

impl Assigned {
    /// Counts a request as a user of the worker.
    fn to(shared: &Arc<SharedWorker>) -> Self {
        shared.assigned.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }

    /// The worker that the request is assigned to.
    pub(super) fn shared(&self) -> &Arc<SharedWorker> {
        &self.0
    }

    /// Waits for the end of the start, and returns its result. `None` if the start was abandoned.
    pub(super) async fn opened(&self) -> Option<Result<Arc<PooledWorker>, Failure>> {
        let mut outcome = self.0.outcome.subscribe();
        let outcome = outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.0.assigned.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SharedWorker {
    /// The child, once its start has succeeded.
    pub(super) fn child(&self) -> Option<Arc<PooledWorker>> {
        self.outcome.borrow().as_ref().and_then(|outcome| outcome.as_ref().ok().cloned())
    }

    /// Leases on the worker, and requests assigned to it.
    fn users(&self) -> usize {
        self.assigned.load(Ordering::Relaxed) + self.child().map_or(0, |child| child.worker.sessions())
    }

    /// A sort key for choosing the least loaded worker: users first, then calls in flight.
    fn business(&self) -> (usize, usize) {
        (self.users(), self.child().map_or(0, |child| child.worker.load()))
    }

    /// Whether this is the entry of the child.
    fn is(&self, child: &Arc<PooledWorker>) -> bool {
        self.child().is_some_and(|own| Arc::ptr_eq(&own, child))
    }

    /// Whether the worker is for this scope, and opened (or unopened, with `None`) as the compatibility key says.
    fn fits(&self, scope: &Scope, key: Option<&Fingerprint>) -> bool {
        self.scope == *scope && self.opening.as_ref().map(|own| &own.fingerprint) == key
    }
}

impl Inventory {
    /// Assigns the least busy fitting worker, starting ones included, if the pool has `replicas` of them or one without
    /// users. `None` means that another worker has to be started.
    pub(super) fn least_busy(&self, scope: &Scope, key: Option<&Fingerprint>, replicas: usize) -> Option<Assigned> {
        let takes_calls = |shared: &SharedWorker| shared.child().is_none_or(|child| child.worker.takes_calls());
        let fitting = self.shared.iter().filter(|shared| shared.fits(scope, key) && takes_calls(shared));
        let count = fitting.clone().count();
        let least = fitting.min_by_key(|shared| shared.business())?;
        (count >= replicas || least.users() == 0).then(|| Assigned::to(least))
    }

    /// Assigns the least busy fitting worker whose start has succeeded.
    pub(super) fn least_busy_of_opened(&self, scope: &Scope, key: Option<&Fingerprint>) -> Option<Assigned> {
        let takes_calls = |shared: &SharedWorker| shared.child().is_some_and(|child| child.worker.takes_calls());
        let fitting = self.shared.iter().filter(|shared| shared.fits(scope, key) && takes_calls(shared));
        fitting.min_by_key(|shared| shared.business()).map(Assigned::to)
    }

    /// Adds a shared worker that is to be started.
    pub(super) fn add(&mut self, scope: Scope, opening: Option<Opening>, tenant: TenantId) -> Assigned {
        let (outcome, _) = watch::channel(None);
        let shared = Arc::new(SharedWorker { scope, opening, tenant, outcome, assigned: AtomicUsize::new(0) });
        let assigned = Assigned::to(&shared);
        self.shared.push(shared);
        assigned
    }

    /// Removes a shared worker whose start has failed.
    pub(super) fn remove(&mut self, shared: &Arc<SharedWorker>) {
        self.shared.retain(|other| !Arc::ptr_eq(other, shared));
    }

    /// The fitting shared workers that take no calls any more: their successors inherit their capacity.
    pub(super) fn replaced(&self, scope: &Scope, key: Option<&Fingerprint>) -> Vec<Arc<PooledWorker>> {
        let fitting = self.shared.iter().filter(|shared| shared.fits(scope, key));
        fitting.filter_map(|shared| shared.child().filter(|child| !child.worker.takes_calls())).collect()
    }

    /// Moves a child that has ended to the list of ended ones.
    pub(super) fn forget(&mut self, child: &Arc<PooledWorker>) {
        self.exited.push_front(WorkerStatus::of(&child.worker));
        self.exited.truncate(EXITED);
        self.children.retain(|other| !Arc::ptr_eq(other, child));
        self.spares.retain(|spare| !Arc::ptr_eq(&spare.child, child));
    }

    /// Removes an ended child from the shared workers: its successor, if any, has been started.
    pub(super) fn dismiss(&mut self, child: &Arc<PooledWorker>) {
        self.shared.retain(|shared| !shared.is(child));
    }

    /// Whether [`take_spare`](Self::take_spare) would find a spare.
    pub(super) fn has_spare(&mut self, key: Option<&Fingerprint>) -> bool {
        self.spare(key).is_some()
    }

    /// Takes a spare that was opened with this compatibility key, or else one that has not heard `initialize`.
    pub(super) fn take_spare(&mut self, key: Option<&Fingerprint>) -> Option<Arc<PooledWorker>> {
        let place = self.spare(key)?;
        Some(self.spares.remove(place).child)
    }

    fn spare(&mut self, key: Option<&Fingerprint>) -> Option<usize> {
        self.spares.retain(|spare| spare.child.worker.takes_calls());
        let place = |wanted: Option<&Fingerprint>| self.spares.iter().position(|s| s.fingerprint.as_ref() == wanted);
        place(key).or_else(|| place(None))
    }

    /// Stops one unused child so that capacity of the pool becomes free: a spare, a start whose client has left, or a shared
    /// worker without leases. Does nothing while `wanted` or more children are already ending.
    pub(super) fn make_room(&mut self, wanted: usize) {
        if self.children.iter().filter(|child| !child.worker.is_alive()).count() >= wanted {
            return;
        }
        if let Some(spare) = self.spares.pop() {
            spare.child.worker.stop();
            return;
        }
        self.give_up_unused(|_| true);
    }

    /// Stops one unused child for each tenant that is waited for at its own ceiling, unless a child of that tenant is already
    /// ending.
    pub(super) fn make_places(&mut self, is_waited_for: impl Fn(&TenantId) -> bool) {
        let mut has_more = true;
        while has_more {
            let leaving = self.children.iter().filter(|child| !child.worker.is_alive());
            let leaving: Vec<_> = leaving.filter_map(|child| child.worker.tenant()).collect();
            has_more = self.give_up_unused(|holder| {
                holder.is_some_and(|tenant| is_waited_for(tenant) && !leaving.contains(tenant))
            });
        }
    }

    /// Stops a start whose client has left, or a shared worker without leases, of a tenant that `of` accepts (`None`: a
    /// worker that all tenants share). Returns whether there was one.
    fn give_up_unused(&mut self, of: impl Fn(Option<&TenantId>) -> bool) -> bool {
        if self.starts.give_up_last(|tenant| of(Some(tenant))) {
            return true;
        }
        let unused = self.shared.iter().position(|shared| {
            let holder = Some(&shared.tenant).filter(|_| shared.scope != Scope::Everybody);
            let is_unused = |child: Arc<PooledWorker>| {
                let worker = &child.worker;
                worker.sessions() == 0 && worker.is_idle() && worker.takes_calls()
            };
            of(holder) && shared.assigned.load(Ordering::Relaxed) == 0 && shared.child().is_some_and(is_unused)
        });
        let unused = unused.map(|place| self.shared.remove(place)).and_then(|shared| shared.child());
        unused.inspect(|child| child.worker.stop()).is_some()
    }

    /// The entry of a child among the shared workers.
    pub(super) fn shared_of(&self, child: &Arc<PooledWorker>) -> Option<Arc<SharedWorker>> {
        self.shared.iter().find(|shared| shared.is(child)).cloned()
    }

    /// Stops every child.
    pub(super) fn stop_all(&mut self) {
        self.spares.clear();
        self.starts.clear();
        self.shared.clear();
        self.children.iter().for_each(|child| child.worker.stop());
    }
}
