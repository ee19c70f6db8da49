//! Permits of the circuit breaker: leave for one attempt to have a child.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::Pool;
use super::breaker::{Admission, PermitId};
use super::child::PooledWorker;
use super::permits::TenantKey;
use crate::worker::Failure;

/// Leave of the circuit breaker for one attempt to have a child. A permit that is dropped unused counts as no attempt.
pub(super) struct BreakerPermit<'a> {
    pool: &'a Pool,
    tenant: TenantKey,
    /// `None` once the outcome of the attempt is known.
    id: Option<PermitId>,
}

impl<'a> BreakerPermit<'a> {
    /// Wraps the number of a permit that the breaker has granted.
    pub(super) fn new(pool: &'a Pool, tenant: TenantKey, id: PermitId) -> Self {
        Self { pool, tenant, id: Some(id) }
    }

    /// Gets a permit, after the pause that the circuit breaker asks for.
    ///
    /// # Errors
    /// The server keeps crashing.
    pub(super) async fn admitted(pool: &'a Pool, tenant: TenantKey) -> Result<Self, Failure> {
        let refused = |retry| Failure::crash_loop(&pool.server.name, retry);
        match pool.breaker.admit(&tenant, Instant::now()) {
            Admission::After(id, pause) => {
                let permit = Self::new(pool, tenant, id);
                sleep(pause).await;
                // The permit keeps its generation, but too many others may have crashed during the pause.
                pool.breaker.renew(&permit.tenant, id, Instant::now()).map_err(refused)?;
                Ok(permit)
            }
            Admission::Refused(retry) => Err(refused(retry)),
        }
    }

    /// Asks again after a wait: crashes of other children since then count for this attempt.
    ///
    /// # Errors
    /// The server keeps crashing.
    pub(super) fn renew(&mut self) -> Result<(), Failure> {
        let Some(id) = self.id else { return Ok(()) };
        let renewed = self.pool.breaker.renew(&self.tenant, id, Instant::now());
        self.id = Some(renewed.map_err(|retry| Failure::crash_loop(&self.pool.server.name, retry))?);
        Ok(())
    }

    /// Hands the permit's number over to a new child, whose end tells the outcome of the attempt.
    pub(super) fn into_id(mut self) -> PermitId {
        self.id.take().unwrap_or_default()
    }

    /// Ends the attempt with a spare, whose fate tells the outcome from now on.
    pub(super) fn adopts(self, spare: &Arc<PooledWorker>) {
        let (pool, tenant) = (self.pool, self.tenant.clone());
        let id = self.into_id();
        spare.set_permit(id);
        if spare.worker.opened().is_some() {
            pool.breaker.opened(&tenant, id);
        } else if !spare.worker.is_alive() {
            // The spare may have ended before its end could be attributed to this permit.
            pool.breaker.abandoned(&tenant, id);
        }
    }

    /// Ends the attempt: no child could be started.
    pub(super) fn fails(mut self) {
        let Some(id) = self.id.take() else { return };
        self.pool.breaker.crashed(&self.tenant, id, self.pool.answered_for(&self.tenant), Instant::now());
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        self.id.inspect(|id| self.pool.breaker.abandoned(&self.tenant, *id));
    }
}
