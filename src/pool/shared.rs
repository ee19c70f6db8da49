//! Children that several sessions share: who gets which, and which takes the place of one that is replaced.

use std::sync::Arc;

use super::inventory::{Assigned, Scope, SharedWorker};
use super::{Applicant, Granted, Pool, PooledWorker, SpawnRequest};
use crate::config::{Isolation, TenantId};
use crate::process::Owner;
use crate::worker::{Failure, Lease, Nobody, Opening};

impl Pool {
    pub(super) async fn lease_shared(&self, applicant: &Applicant) -> Result<Granted, Failure> {
        let opening = Opening::of_gateway(&applicant.initialize, true);
        let scope = self.scope(applicant);
        loop {
            let mut assigned = self.member(&scope, &opening, applicant.principal.tenant(), applicant.is_replay);
            let stopped = || Failure::stopped(&self.server.name);
            let mut outcome = assigned.opened().await.ok_or_else(stopped)?;
            if let Err(failure) = outcome {
                // Whoever is there already takes those whose own does not start.
                let other = self.inventory.lock().least_busy_of_opened(&scope, &opening.fingerprint);
                assigned = other.ok_or(failure)?;
                outcome = assigned.opened().await.ok_or_else(stopped)?;
            }
            let child = outcome?;
            let lease = {
                // In one go, for who counts: it is on its way until it is there.
                let _shelf = self.inventory.lock();
                let lease = Arc::new(Lease::new(child.worker.clone(), applicant.peer.clone(), false));
                drop(assigned);
                lease
            };
            // It may have been retired between the choice and the lease: then another one is chosen.
            if let (true, Some(answer)) = (child.worker.takes_calls(), child.worker.opened()) {
                return Ok(Granted { lease, answer: answer.clone() });
            }
        }
    }

    fn replicas(&self) -> usize {
        if self.server.isolation == Isolation::Shared { self.server.pool.replicas } else { 1 }
    }

    /// The child for whoever wants this: the least busy, or one more, if there are not as many as there should be.
    fn member(&self, scope: &Scope, opening: &Opening, tenant: &TenantId, is_replay: bool) -> Assigned {
        let (assigned, replaces) = {
            let mut inventory = self.inventory.lock();
            if let Some(assigned) = inventory.least_busy(scope, &opening.fingerprint, self.replicas()) {
                return assigned;
            }
            let replaces = inventory.replaced(scope, &opening.fingerprint);
            (inventory.add(scope.clone(), opening.clone(), tenant.clone()), replaces)
        };
        let owner = match scope {
            Scope::Principal(principal) => Owner::principal(principal),
            Scope::Tenant(tenant) => Owner::tenant(tenant),
            Scope::Session | Scope::Everybody => Owner::everybody(),
        };
        let request = SpawnRequest { tenant: tenant.clone(), owner, session: "-".into(), is_replay, replaces };
        self.open_member(assigned.shared(), request);
        assigned
    }

    /// A child takes no more calls, or has ended. If sessions are on it, another is started at once, one for all of them.
    pub(super) fn succeed(&self, child: &Arc<PooledWorker>) {
        let member = self.inventory.lock().shared_of(child);
        if let Some(member) = member
            && child.worker.is_in_use()
            && !self.surroundings.draining.is_cancelled()
        {
            drop(self.member(&member.scope, &member.opening, &member.tenant, true));
        }
    }

    /// Starts and opens a child that several will share, off the path of whoever asked first.
    fn open_member(&self, member: &Arc<SharedWorker>, request: SpawnRequest) {
        let Some(this) = self.this.upgrade() else { return };
        let member = Arc::clone(member);
        self.surroundings.tasks.spawn(async move {
            let started = this.start_shared(&request, &member.opening);
            let outcome = this.surroundings.draining.run_until_cancelled(started).await;
            let outcome = outcome.unwrap_or_else(|| Err(Failure::stopped(&this.server.name)));
            if outcome.is_err() {
                this.inventory.lock().remove(&member);
            }
            member.outcome.send_replace(Some(outcome));
            // Who saw it end before it was known to be this one's has not found it on the inventory.
            if member.child().is_some_and(|child| child.worker.has_ended()) {
                this.inventory.lock().remove(&member);
            }
        });
    }

    async fn start_shared(&self, request: &SpawnRequest, opening: &Opening) -> Result<Arc<PooledWorker>, Failure> {
        let child = self.obtain(request, &opening.fingerprint).await?;
        let worker = &child.worker;
        if worker.opened().is_none() {
            // A session that is nobody's: it opens the child, and is gone.
            let lease = Lease::new(worker.clone(), Nobody::peer(), false);
            let answer = self.open(&child, &lease, &opening.message).await?;
            if worker.opened().is_none() {
                worker.stop();
                return Err(Failure::refused_by_server(&self.server.name, &answer));
            }
        }
        worker.say_initialized();
        Ok(child)
    }
}
