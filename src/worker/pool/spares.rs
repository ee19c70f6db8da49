//! Children that are started before anybody asks. A spare has been nobody's: it holds no tenant's secret.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::Pool;
use super::member::Spare;
use super::slots::Slot;
use crate::config::{PoolMode, TenantId};
use crate::process::Origin;
use crate::worker::lease::Lease;
use crate::worker::opening::{Fingerprint, Opening};
use crate::worker::peer::{Nobody, Peer};

impl Pool {
    /// Starts as many spares as there should be, and stops those that are too many.
    pub(super) fn replenish(&self) {
        let pool = &self.server.pool;
        let (least, most) = match pool.mode {
            PoolMode::Ondemand => return,
            PoolMode::Static => (pool.max_children, pool.max_children),
            PoolMode::Dynamic => (pool.min_spare, pool.max_spare),
        };
        let missing = {
            let mut shelf = self.shelf.lock();
            shelf.spares.retain(|spare| spare.worker.takes_calls());
            while shelf.spares.len() > most {
                shelf.spares.remove(0).worker.stop();
            }
            least.saturating_sub(shelf.spares.len() + shelf.starting_spares)
        };
        for _ in 0..missing {
            // Whoever waits for a place comes first.
            let Some(slot) = self.slots.try_take() else { return };
            self.shelf.lock().starting_spares += 1;
            self.start_spare(slot);
        }
    }

    fn start_spare(&self, slot: Slot) {
        let Some(this) = self.this.upgrade() else { return };
        self.surroundings.tasks.spawn(async move {
            let spare = this.prepare_spare(slot).await;
            let mut shelf = this.shelf.lock();
            shelf.starting_spares -= 1;
            if this.surroundings.draining.is_cancelled() {
                spare.inspect(|spare| spare.worker.stop());
            } else {
                shelf.spares.extend(spare);
            }
        });
    }

    async fn prepare_spare(self: &Arc<Self>, slot: Slot) -> Option<Spare> {
        if self.spares_keep_failing() {
            return None;
        }
        let worker = self.spawn(slot, Origin::unowned(&self.server.name), None).await.ok()?;
        let wanted = self.shelf.lock().wanted.clone();
        let mut fingerprint = None;
        if wanted.is_none() {
            // What the first client will ask for is not known: the child waits unopened.
            worker.settle();
        }
        if let Some(initialize) = wanted {
            let opening = Opening::of_gateway(&initialize, !self.is_exclusive());
            let nobody: Weak<dyn Peer> = Weak::<Nobody>::new();
            let lease = Lease::new(worker.clone(), nobody, false);
            let answer = worker.open(&lease, &opening.message).await;
            if worker.opened().is_none() {
                tracing::warn!(server = %self.server.name, started = answer.is_ok(), "a spare child did not open");
                worker.stop();
                return None;
            }
            fingerprint = Some(of_session(&initialize, opening.fingerprint, self.is_exclusive()));
        }
        Some(Spare { worker, fingerprint })
    }

    /// A server that does not start is not tried over and over for nobody.
    fn spares_keep_failing(&self) -> bool {
        !self.breaker.open(Instant::now()).is_empty()
    }

    /// The tenants that the server is left alone for, because it keeps crashing for them.
    pub fn crash_loops(&self) -> Vec<TenantId> {
        self.breaker.open(Instant::now())
    }
}

/// What a spare is looked up by: for a child of its own, a client asks with all its capabilities.
fn of_session(initialize: &bytes::Bytes, shared: Fingerprint, is_exclusive: bool) -> Fingerprint {
    if is_exclusive { Opening::of_client(initialize).fingerprint } else { shared }
}
