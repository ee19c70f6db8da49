//! Shared workers: several leases each. Requests are spread over the replicas.

use std::sync::Arc;

use super::inventory::Scope;
use super::pool::Pool;
use super::start::assign;
use super::wanted::{Granted, Wanted};
use crate::auth::Principal;
use crate::config::Isolation;
use crate::permits::Ceiling;
use crate::worker::{Failure, Lease, Opening, Party};

/// Leases a shared worker: the least loaded one that fits, or a new one.
pub(super) async fn lease(pool: &Pool, wanted: &Wanted) -> Result<Granted, Failure> {
    let opening = wanted.initialize.as_ref().map(|initialize| Opening::of_gateway(initialize, pool.audience()));
    let key = opening.as_ref().map(|own| &own.key);
    let scope = scope(pool.server.isolation, &wanted.principal);
    let parties = parties(pool, &wanted.principal);
    loop {
        let mut assigned = assign(pool, &scope, opening.as_ref(), &wanted.principal, wanted.is_restart);
        let mut outcome = assigned.opened().await.ok_or_else(|| pool.stopped())?;
        if let Err(failure) = outcome {
            // Where the start has failed, another replica that is up serves instead.
            let other = pool.inventory.lock().least_loaded_of_opened(&scope, key);
            assigned = other.ok_or(failure)?;
            outcome = assigned.opened().await.ok_or_else(|| pool.stopped())?;
        }
        let child = outcome?;
        let lease = {
            // Under the lock, so that the request is counted either as assigned or as a lease.
            let _inventory = pool.inventory.lock();
            let lease = Arc::new(Lease::shared(child.worker.clone(), wanted.holder.clone(), &parties));
            drop(assigned);
            lease
        };
        // The worker may have been retired between the choice and the lease: then another one is chosen.
        let answer = child.worker.opened().cloned().filter(|_| opening.is_some());
        if child.worker.takes_calls() && answer.is_some() == opening.is_some() {
            child.note_leased();
            return Ok(Granted { lease, answer });
        }
    }
}

/// The principals that may share a worker with this one. `isolation` is not `session`.
fn scope(isolation: Isolation, principal: &Principal) -> Scope {
    match isolation {
        Isolation::Session | Isolation::Principal => Scope::Principal(principal.clone()),
        Isolation::Tenant => Scope::Tenant(principal.tenant().clone()),
        Isolation::Shared => Scope::Everybody,
    }
}

/// For whom what a session of this principal holds of a child counts, the tenant before the principal: those of whom
/// there may be several on one child.
fn parties(pool: &Pool, principal: &Principal) -> Vec<Party> {
    let server = &pool.server;
    let in_use = Ceiling::InUse(server.name.clone());
    let rivals = pool.surroundings.permits.rivals(&in_use, principal.tenant());
    let tenant = || Party { name: principal.tenant().as_str().to_owned(), has_rivals: rivals.tenants };
    let own = || Party { name: format!("{:?}", principal.distinction()), has_rivals: rivals.principals };
    match server.isolation {
        Isolation::Session | Isolation::Principal => Vec::new(),
        Isolation::Tenant => vec![own()],
        Isolation::Shared => vec![tenant(), own()],
    }
}
