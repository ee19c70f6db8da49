//! A worker as its pool keeps it: with the breaker permit that it was started with, and the capacity that it occupies.
//! A successor inherits that capacity instead of queueing for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::breaker::PermitId;
use super::holder::Holder;
use crate::auth::Principal;
use crate::permits::{Claim, Claimant};
use crate::process::Owner;
use crate::worker::{Lease, Worker};

/// A worker of a pool. Its capacity becomes free when the last reference is dropped, or earlier by
/// [`vacate`](Self::vacate).
pub(super) struct PooledWorker {
    pub(super) worker: Worker,
    /// The breaker permit of the start, or of the request that has taken the worker as a spare.
    pub(super) permit: Mutex<PermitId>,
    /// The owner of the worker's first lease; unset for a spare.
    pub(super) owner: OnceLock<Owner>,
    /// The principal whom the worker counts for; unset for a spare, and where it counts for nobody.
    charged: OnceLock<Principal>,
    /// The capacity; `None` once it is given back or inherited.
    claim: Mutex<Option<Claim>>,
    /// Whether a request has leased the worker: until then it waits for the request that it was started or taken for.
    was_leased: AtomicBool,
    /// Cancelled when the child process is gone.
    vacant: CancellationToken,
}

impl PooledWorker {
    /// A worker that was started under a breaker permit, and occupies the claimed capacity.
    pub(super) fn new(worker: Worker, permit: PermitId, claim: Claim) -> Arc<Self> {
        let (permit, claim) = (Mutex::new(permit), Mutex::new(Some(claim)));
        let (owner, charged, vacant) = (OnceLock::new(), OnceLock::new(), CancellationToken::new());
        let was_leased = AtomicBool::new(false);
        Arc::new(Self { worker, permit, owner, charged, claim, was_leased, vacant })
    }

    /// Notes the first request that the worker is for.
    pub(super) fn is_for(&self, owner: &Owner, claimant: &Claimant) {
        let _ = self.owner.set(owner.clone());
        if let Some(principal) = claimant.charged() {
            let _ = self.charged.set(principal.clone());
        }
    }

    /// Notes that a request has leased the worker.
    pub(super) fn note_leased(&self) {
        self.was_leased.store(true, Ordering::Relaxed);
    }

    /// Whom the worker counts for.
    pub(super) fn holder(&self) -> Holder<'_> {
        Holder { principal: self.charged.get(), is_owned: self.worker.tenant().is_some() }
    }

    /// Whether the child is about to end: its capacity becomes free in a moment.
    pub(super) fn is_ending(&self) -> bool {
        !self.worker.is_alive() || self.worker.is_given_up_as_idle()
    }

    /// Whether the child is no spare, and nobody has a use for it at present. A child that no request has leased yet is
    /// not idle: the request that waits for it would get one that ends. A server that keeps its children keeps those
    /// that sessions are on.
    pub(super) fn is_idle(&self) -> bool {
        let is_kept = self.worker.is_kept() && self.worker.sessions() > 0;
        !is_kept && self.was_leased.load(Ordering::Relaxed) && self.worker.is_dispensable()
    }

    /// The pooled workers of leases whose workers take no calls any more, for a successor to inherit from.
    pub(super) fn replaced_by(leases: &[Arc<Lease>]) -> Vec<Arc<Self>> {
        let replaced = leases.iter().filter(|lease| lease.leaves_capacity());
        replaced.filter_map(|lease| Arc::downcast(Arc::clone(lease.held()?)).ok()).collect()
    }

    /// Adds capacity that the worker counts under from now on, such as that of the tenant that adopts it.
    pub(super) fn add(&self, claim: Claim) {
        let mut own = self.claim.lock();
        match &mut *own {
            Some(own) => own.merge(claim),
            None => *own = Some(claim),
        }
    }

    /// Marks the child process as gone. The capacity goes to a successor, or, with `is_last`, back to the pool.
    pub(super) fn vacate(&self, is_last: bool) {
        let claim = self.claim.lock().take_if(|_| is_last);
        // Requests that wait for the capacity are served when the claim is dropped: not under the lock.
        drop(claim);
        self.vacant.cancel();
    }

    /// Waits until one of the `replaced` workers is gone whose capacity no other successor has taken, and takes that
    /// capacity. Never returns if there is none.
    pub(super) async fn inherit(replaced: &[Arc<Self>]) -> Claim {
        let vacated = |child: &Arc<Self>| {
            let child = Arc::clone(child);
            async move {
                child.vacant.cancelled().await;
                child.claim.lock().take()
            }
        };
        let mut replaced: FuturesUnordered<_> = replaced.iter().map(vacated).collect();
        while let Some(claim) = replaced.next().await {
            if let Some(claim) = claim {
                return claim;
            }
        }
        std::future::pending().await
    }
}
