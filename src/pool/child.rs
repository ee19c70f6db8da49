//! A worker as its pool keeps it: with the breaker permit that it was started with, and the capacity that it occupies. A
//! successor inherits that capacity instead of queueing for it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::breaker::PermitId;
use super::permits::Slot;
use crate::process::Place;
use crate::worker::{Lease, Worker};

/// A worker of a pool. The capacity becomes free when the last reference is dropped, or earlier by [`clear`](Self::clear).
pub(super) struct PooledWorker {
    pub(super) worker: Worker,
    /// The permit of the latest start or adoption.
    permit: Mutex<PermitId>,
    slot: Mutex<Option<Slot>>,
    place: Mutex<Option<Place>>,
    /// Cancelled when the child process is gone.
    vacant: CancellationToken,
}

impl PooledWorker {
    pub(super) fn new(worker: Worker, permit: PermitId, slot: Slot) -> Arc<Self> {
        Arc::new(Self {
            worker,
            permit: Mutex::new(permit),
            slot: Mutex::new(Some(slot)),
            place: Mutex::default(),
            vacant: CancellationToken::new(),
        })
    }

    /// The pooled workers of leases whose workers take no calls any more, for a successor to inherit from.
    pub(super) fn replaced_by(leases: &[Arc<Lease>]) -> Vec<Arc<Self>> {
        let replaced = leases.iter().filter(|lease| !lease.worker().takes_calls());
        replaced.filter_map(|lease| Arc::downcast(Arc::clone(lease.held()?)).ok()).collect()
    }

    /// The number of the breaker permit that the worker was started or adopted with.
    pub(super) fn permit(&self) -> PermitId {
        *self.permit.lock()
    }

    /// Replaces the permit: a spare is adopted under the permit of the request that takes it.
    pub(super) fn set_permit(&self, permit: PermitId) {
        *self.permit.lock() = permit;
    }

    /// Adds a tenant's place: the worker counts for that tenant from now on.
    pub(super) fn add(&self, place: Place) {
        *self.place.lock() = Some(place);
    }

    /// Marks the child process as gone. The capacity is for a successor.
    pub(super) fn vacate(&self) {
        self.vacant.cancel();
    }

    /// Marks the child process as gone and gives its capacity back: the worker has no successor.
    pub(super) fn clear(&self) {
        self.take_slot();
        self.take_place();
        self.vacate();
    }

    pub(super) fn take_slot(&self) -> Option<Slot> {
        self.slot.lock().take()
    }

    pub(super) fn take_place(&self) -> Option<Place> {
        self.place.lock().take()
    }

    /// Waits until one of the `replaced` workers is gone whose capacity nobody has taken yet, and takes it. Never returns if
    /// there is none.
    pub(super) async fn inherit<T>(replaced: &[Arc<Self>], take: impl Fn(&Self) -> Option<T>) -> T {
        let vacated = |child: &Arc<Self>| {
            let child = Arc::clone(child);
            async move {
                child.vacant.cancelled().await;
                child
            }
        };
        let mut replaced: FuturesUnordered<_> = replaced.iter().map(vacated).collect();
        while let Some(child) = replaced.next().await {
            if let Some(left) = take(&child) {
                return left;
            }
        }
        std::future::pending().await
    }
}
