//! What a pool has on its shelf: children that are shared, spares, and all that are alive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::Room;
use super::demand::Demand;
use super::own::Starts;
use super::pools::WorkerStatus;
use crate::auth::Principal;
use crate::config::TenantId;
use crate::worker::error::Failure;
use crate::worker::handle::Worker;
use crate::worker::opening::{Fingerprint, Opening};

/// Children that have ended which are remembered.
const EXITED: usize = 20;

/// Who may share a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Nobody: such a child is not on the shelf.
    Session,
    Principal(Principal),
    Tenant(TenantId),
    Everybody,
}

/// A child that sessions share, from the moment it is wanted.
pub(super) struct Member {
    pub(super) scope: Scope,
    pub(super) opening: Opening,
    /// Whose session asked for it first.
    pub(super) tenant: TenantId,
    /// How its start went; everybody who wants it waits for this.
    pub(super) outcome: watch::Sender<Option<Result<Worker, Failure>>>,
    /// Sessions on their way to it.
    assigned: AtomicUsize,
}

/// A session's way to a child that it shares. Until it is on it, it counts as if it were.
pub(super) struct Assigned(Arc<Member>);

/// A child that waits to be leased.
pub(super) struct Spare {
    pub(super) worker: Worker,
    /// What it has been opened for, if it has.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// Everything that a pool has.
#[derive(Default)]
pub(super) struct Shelf {
    members: Vec<Arc<Member>>,
    pub(super) spares: Vec<Spare>,
    /// All that are alive, spares and leased ones.
    pub(super) workers: Vec<Worker>,
    /// The last that have ended, the latest first.
    pub(super) exited: VecDeque<WorkerStatus>,
    /// Children that a session is to have to itself.
    pub(super) starts: Starts,
    /// Spares on their way.
    pub(super) starting_spares: usize,
    /// What clients ask for: what spares are opened for.
    pub(super) demand: Demand,
}

impl Assigned {
    fn to(member: &Arc<Member>) -> Self {
        member.assigned.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(member))
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.0
    }

    /// Waits until the child is there.
    ///
    /// # Errors
    /// How its start went, if it did not.
    pub(super) async fn opened(&self) -> Option<Result<Worker, Failure>> {
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

impl Member {
    /// Its child, once that is there.
    pub(super) fn worker(&self) -> Option<Worker> {
        self.outcome.borrow().as_ref().and_then(|outcome| outcome.as_ref().ok().cloned())
    }

    /// Sessions on it, or on their way.
    fn sessions(&self) -> usize {
        self.assigned.load(Ordering::Relaxed) + self.worker().map_or(0, |worker| worker.sessions())
    }

    /// The fewer sessions, the less busy; of equals, the one with the fewer calls in flight.
    fn business(&self) -> (usize, usize) {
        (self.sessions(), self.worker().map_or(0, |worker| worker.load()))
    }

    fn is(&self, worker: &Worker) -> bool {
        self.worker().is_some_and(|own| own.is(worker))
    }

    fn fits(&self, scope: &Scope, fingerprint: &Fingerprint) -> bool {
        self.scope == *scope && self.opening.fingerprint == *fingerprint
    }
}

impl Shelf {
    /// The least busy child, if there are as many as there should be; `None` if one more is wanted.
    pub(super) fn least_busy(&self, scope: &Scope, fingerprint: &Fingerprint, replicas: usize) -> Option<Assigned> {
        let takes_calls = |member: &Member| member.worker().is_none_or(|worker| worker.takes_calls());
        let fitting = self.members.iter().filter(|member| member.fits(scope, fingerprint) && takes_calls(member));
        let count = fitting.clone().count();
        let least = fitting.min_by_key(|member| member.business())?;
        (count >= replicas || least.sessions() == 0).then(|| Assigned::to(least))
    }

    /// The least busy child that is there already.
    pub(super) fn least_busy_of_opened(&self, scope: &Scope, fingerprint: &Fingerprint) -> Option<Assigned> {
        let takes_calls = |member: &Member| member.worker().is_some_and(|worker| worker.takes_calls());
        let fitting = self.members.iter().filter(|member| member.fits(scope, fingerprint) && takes_calls(member));
        fitting.min_by_key(|member| member.business()).map(Assigned::to)
    }

    pub(super) fn add(&mut self, scope: Scope, opening: Opening, tenant: TenantId) -> Assigned {
        let (outcome, _) = watch::channel(None);
        let member = Arc::new(Member { scope, opening, tenant, outcome, assigned: AtomicUsize::new(0) });
        let assigned = Assigned::to(&member);
        self.members.push(member);
        assigned
    }

    pub(super) fn remove(&mut self, member: &Arc<Member>) {
        self.members.retain(|other| !Arc::ptr_eq(other, member));
    }

    /// The rooms of those that are being replaced, or have just ended, for those that take their places.
    pub(super) fn rooms_left(&self, scope: &Scope, fingerprint: &Fingerprint) -> Vec<Arc<Room>> {
        let fitting = self.members.iter().filter(|member| member.fits(scope, fingerprint));
        fitting.filter_map(|member| member.worker().filter(|worker| !worker.takes_calls())?.room()).collect()
    }

    /// A child has ended.
    pub(super) fn forget(&mut self, worker: &Worker) {
        self.exited.push_front(WorkerStatus::of(worker));
        self.exited.truncate(EXITED);
        self.workers.retain(|other| !other.is(worker));
        self.spares.retain(|spare| !spare.worker.is(worker));
    }

    /// Nobody takes the room any more of a child that has ended, and that sessions have shared.
    pub(super) fn dismiss(&mut self, worker: &Worker) {
        self.members.retain(|member| !member.is(worker));
    }

    /// A spare that is opened for the same, or for nothing yet.
    pub(super) fn take_spare(&mut self, fingerprint: &Fingerprint) -> Option<Worker> {
        self.spares.retain(|spare| spare.worker.takes_calls());
        let place = |wanted: Option<&Fingerprint>| self.spares.iter().position(|s| s.fingerprint.as_ref() == wanted);
        let place = place(Some(fingerprint)).or_else(|| place(None))?;
        Some(self.spares.remove(place).worker)
    }

    /// Stops something that nobody uses, so that a place becomes free: a spare, a start that nobody waits for, or a shared
    /// child without a session. Nothing, while as many are on their way out as are `wanted`.
    pub(super) fn make_room(&mut self, wanted: usize) {
        if self.workers.iter().filter(|worker| !worker.is_alive()).count() >= wanted {
            return;
        }
        if let Some(spare) = self.spares.pop() {
            spare.worker.stop();
            return;
        }
        self.give_up_unused(|_| true);
    }

    /// The same for tenants that wait for a place of theirs: of each at most one is on its way out.
    pub(super) fn make_places(&mut self, is_waited_for: impl Fn(&TenantId) -> bool) {
        let mut has_more = true;
        while has_more {
            let leaving = self.workers.iter().filter(|worker| !worker.is_alive());
            let leaving: Vec<_> = leaving.filter_map(|worker| worker.shared().origin.tenant()).collect();
            has_more = self.give_up_unused(|holder| {
                holder.is_some_and(|tenant| is_waited_for(tenant) && !leaving.contains(tenant))
            });
        }
    }

    /// Stops a start that nobody waits for, or a shared child without a session, of whoever it counts for. Says whether there
    /// was one.
    fn give_up_unused(&mut self, of: impl Fn(Option<&TenantId>) -> bool) -> bool {
        if self.starts.give_up_last(|tenant| of(Some(tenant))) {
            return true;
        }
        let unused = self.members.iter().position(|member| {
            let holder = Some(&member.tenant).filter(|_| member.scope != Scope::Everybody);
            let is_unused = |worker: Worker| worker.sessions() == 0 && worker.is_idle() && worker.takes_calls();
            of(holder) && member.assigned.load(Ordering::Relaxed) == 0 && member.worker().is_some_and(is_unused)
        });
        let unused = unused.map(|place| self.members.remove(place)).and_then(|member| member.worker());
        unused.inspect(Worker::stop).is_some()
    }

    /// What a child that sessions share is to the pool.
    pub(super) fn member_of(&self, worker: &Worker) -> Option<Arc<Member>> {
        self.members.iter().find(|member| member.is(worker)).cloned()
    }

    /// Stops every child.
    pub(super) fn stop_all(&mut self) {
        self.spares.clear();
        self.starts.clear();
        self.members.clear();
        self.workers.iter().for_each(Worker::stop);
    }
}
