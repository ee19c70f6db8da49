//! The inventory of a pool: shared workers, spares, starts under way, and every living child.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::child::PooledWorker;
use super::demand::Demand;
use super::holder::Holder;
use super::starts::Starts;
use super::status::WorkerStatus;
use crate::auth::Principal;
use crate::config::TenantId;
use crate::permits::Claimant;
use crate::worker::{CompatibilityKey, Failure, Opening, Worker};

/// The largest number of ended children that each pool remembers for operators.
const EXITED: usize = 20;

/// The principals that may share a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
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
    /// The principal of the first lease.
    pub(super) principal: Principal,
    /// Whether the child counts for nobody: one that all tenants share, opened like the first of those.
    is_common: bool,
    /// The result of the start; `None` while the start is under way. All that want this worker wait here.
    pub(super) outcome: watch::Sender<Option<Result<Arc<PooledWorker>, Failure>>>,
    /// Each request that waits for the start, or is about to lease the worker, holds one reference more: a counter.
    assigned: Arc<()>,
}

/// A request's claim on a shared worker, counted as a user of the worker until the lease exists.
pub(super) struct Assigned {
    /// The worker that the request is assigned to.
    pub(super) shared: Arc<SharedWorker>,
    _counted: Arc<()>,
}

/// A child that was started in advance and waits to be leased.
pub(super) struct Spare {
    pub(super) child: Arc<PooledWorker>,
    /// The compatibility key that the spare was opened for; `None` for a spare that has not heard `initialize`.
    pub(super) key: Option<CompatibilityKey>,
}

/// The children of one pool, by use.
#[derive(Default)]
pub(super) struct Inventory {
    shared: Vec<Arc<SharedWorker>>,
    pub(super) spares: Vec<Spare>,
    /// All children that have not ended, leased or spare.
    pub(super) children: Vec<Arc<PooledWorker>>,
    /// The children that ended last, at most [`EXITED`], the latest first.
    pub(super) exited: VecDeque<WorkerStatus>,
    /// Starts of exclusive workers that a client waits for, or has left.
    pub(super) starts: Starts,
    /// Spares that are being started.
    pub(super) starting_spares: usize,
    /// The openings that clients ask for, which spares are started for.
    pub(super) demand: Demand,
}

impl Assigned {
    /// Counts a request as a user of the worker.
    fn to(shared: &Arc<SharedWorker>) -> Self {
        Self { shared: Arc::clone(shared), _counted: Arc::clone(&shared.assigned) }
    }

    /// Waits for the end of the start, and returns its result. Never `None`: the assignment keeps the sender of the
    /// result.
    pub(super) async fn opened(&self) -> Option<Result<Arc<PooledWorker>, Failure>> {
        let mut outcome = self.shared.outcome.subscribe();
        let outcome = outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

impl SharedWorker {
    /// The child, once its start has succeeded.
    pub(super) fn child(&self) -> Option<Arc<PooledWorker>> {
        self.outcome.borrow().as_ref().and_then(|outcome| outcome.as_ref().ok().cloned())
    }

    /// The number of requests that are assigned to the worker and have no lease yet.
    fn assigned(&self) -> usize {
        Arc::strong_count(&self.assigned) - 1
    }

    /// The load of the worker, to compare workers by: its leases and assigned requests, then its calls in flight.
    fn load(&self) -> (usize, usize) {
        let (leases, calls) = self.child().map_or((0, 0), |child| (child.worker.sessions(), child.worker.load()));
        (self.assigned() + leases, calls)
    }

    /// For whom the child counts among the children of its server.
    pub(super) fn claimant(&self) -> Claimant {
        if self.is_common { Claimant::for_everybody(&self.principal) } else { Claimant::of(&self.principal) }
    }

    /// Whom the capacity of the child counts for.
    fn holder(&self) -> Holder<'_> {
        let is_owned = self.scope != Scope::Everybody;
        Holder { principal: Some(&self.principal).filter(|_| !self.is_common), is_owned }
    }

    /// Whether this is the entry of the child.
    fn is(&self, child: &Arc<PooledWorker>) -> bool {
        self.child().is_some_and(|own| Arc::ptr_eq(&own, child))
    }
}

impl Inventory {
    /// The shared workers for this scope that are opened as the compatibility key says (`None`: not opened).
    fn fitting(
        &self,
        scope: &Scope,
        key: Option<&CompatibilityKey>,
    ) -> impl Iterator<Item = &Arc<SharedWorker>> + Clone {
        let is_opened_for = move |shared: &SharedWorker| shared.opening.as_ref().map(|own| &own.key) == key;
        self.shared.iter().filter(move |shared| shared.scope == *scope && is_opened_for(shared))
    }

    /// Assigns the least loaded fitting worker, starting ones included, if the pool has `replicas` of them or one
    /// without users. `None` means that another worker has to be started.
    pub(super) fn least_loaded(
        &self,
        scope: &Scope,
        key: Option<&CompatibilityKey>,
        replicas: usize,
    ) -> Option<Assigned> {
        let takes_calls = |shared: &SharedWorker| shared.child().is_none_or(|child| child.worker.takes_calls());
        let fitting = self.fitting(scope, key).filter(|shared| takes_calls(shared));
        let least = fitting.clone().min_by_key(|shared| shared.load())?;
        (fitting.count() >= replicas || least.load().0 == 0).then(|| Assigned::to(least))
    }

    /// Assigns the least loaded fitting worker whose start has succeeded.
    pub(super) fn least_loaded_of_opened(&self, scope: &Scope, key: Option<&CompatibilityKey>) -> Option<Assigned> {
        let takes_calls = |shared: &SharedWorker| shared.child().is_some_and(|child| child.worker.takes_calls());
        let fitting = self.fitting(scope, key).filter(|shared| takes_calls(shared));
        fitting.min_by_key(|shared| shared.load()).map(Assigned::to)
    }

    /// Adds a shared worker that is to be started, for the first request of a principal. Of the children that all
    /// tenants share, those that are opened otherwise than the first count for who has asked for them.
    pub(super) fn add(&mut self, scope: Scope, opening: Option<Opening>, principal: &Principal) -> Assigned {
        let key = |opening: &Option<Opening>| opening.as_ref().map(|opening| opening.key.clone());
        let is_like = |shared: &Arc<SharedWorker>| !shared.is_common || key(&shared.opening) == key(&opening);
        let is_common = scope == Scope::Everybody && self.shared.iter().all(is_like);
        let (outcome, principal) = (watch::channel(None).0, principal.clone());
        let shared = Arc::new(SharedWorker { scope, opening, principal, is_common, outcome, assigned: Arc::default() });
        let assigned = Assigned::to(&shared);
        self.shared.push(shared);
        assigned
    }

    /// Removes a shared worker whose start has failed, or whose child has ended already.
    pub(super) fn remove(&mut self, shared: &Arc<SharedWorker>) {
        self.shared.retain(|other| !Arc::ptr_eq(other, shared));
    }

    /// The fitting shared workers that take no calls any more: their successors inherit their capacity.
    pub(super) fn replaced(&self, scope: &Scope, key: Option<&CompatibilityKey>) -> Vec<Arc<PooledWorker>> {
        let children = self.fitting(scope, key).filter_map(|shared| shared.child());
        children.filter(|child| !child.worker.takes_calls()).collect()
    }

    /// Moves a child that has ended from the living children and the spares to the ended ones. An entry among the
    /// shared workers stays until [`dismiss`](Self::dismiss).
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

    /// Takes the spare that [`place_of_spare`](Self::place_of_spare) finds.
    pub(super) fn take_spare(&mut self, key: Option<&CompatibilityKey>) -> Option<Arc<PooledWorker>> {
        self.place_of_spare(key).map(|place| self.spares.remove(place).child)
    }

    /// The index of a spare that was opened with this compatibility key, or else of one that has not heard
    /// `initialize`. Spares that take no calls any more are removed first.
    pub(super) fn place_of_spare(&mut self, key: Option<&CompatibilityKey>) -> Option<usize> {
        self.spares.retain(|spare| spare.child.worker.takes_calls());
        let place = |wanted: Option<&CompatibilityKey>| self.spares.iter().position(|s| s.key.as_ref() == wanted);
        place(key).or_else(|| place(None))
    }

    /// Stops unused children so that capacity of the pool becomes free, until `wanted` children are ending or none is
    /// unused: spares, then starts whose clients have left, then shared workers without leases.
    pub(super) fn make_room(&mut self, wanted: usize) {
        let ending = self.children.iter().filter(|child| child.is_ending()).count();
        for _ in ending..wanted {
            match self.spares.pop() {
                Some(spare) => spare.child.worker.stop(),
                None if self.give_up_unused(|_| true) => {}
                None => return,
            }
        }
    }

    /// Stops one unused child of each tenant whose capacity `is_wanted` by a claim that waits at the tenant's own
    /// ceiling, or at its share of what tenants have in common, unless a child of that tenant is already ending.
    pub(super) fn make_places(&mut self, is_wanted: impl Fn(Holder<'_>) -> bool) {
        let mut has_more = true;
        while has_more {
            let leaving = self.children.iter().filter(|child| child.is_ending());
            let leaving: Vec<_> = leaving.filter_map(|child| child.worker.tenant()).collect();
            let is_leaving = |principal: &Principal| leaving.contains(principal.tenant());
            has_more = self.give_up_unused(|holder| {
                holder.principal.is_some_and(|principal| !is_leaving(principal)) && is_wanted(holder)
            });
        }
    }

    /// Stops a start whose client has left, or a shared worker without leases, of a holder that `of` accepts. Returns
    /// whether there was one.
    fn give_up_unused(&mut self, of: impl Fn(Holder<'_>) -> bool) -> bool {
        if self.starts.give_up_last(|principal| of(Holder { principal: Some(principal), is_owned: true })) {
            return true;
        }
        let unused = self.shared.iter().position(|shared| {
            let is_unused = |worker: &Worker| worker.sessions() == 0 && worker.is_idle() && worker.takes_calls();
            of(shared.holder())
                && shared.assigned() == 0
                && shared.child().is_some_and(|child| is_unused(&child.worker))
        });
        let unused = unused.map(|place| self.shared.remove(place)).and_then(|shared| shared.child());
        unused.inspect(|child| child.worker.stop()).is_some()
    }

    /// The entry of a child among the shared workers.
    pub(super) fn shared_of(&self, child: &Arc<PooledWorker>) -> Option<Arc<SharedWorker>> {
        self.shared.iter().find(|shared| shared.is(child)).cloned()
    }

    /// Stops every living child, and forgets the spares, the starts and the shared workers.
    pub(super) fn stop_all(&mut self) {
        self.spares.clear();
        self.starts.0.clear();
        self.shared.clear();
        self.children.iter().for_each(|child| child.worker.stop());
    }
}
