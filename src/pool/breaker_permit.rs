//! A permit of the circuit breaker as a guard, for one attempt to get a child.

use tokio::time::{Instant, sleep};

use super::breaker::PermitId;
use super::child::PooledWorker;
use super::holder::TenantKey;
use super::pool::Pool;
use crate::worker::Failure;

/// The circuit breaker's permit for one attempt to get a child. Dropped unused, the permit counts as no attempt.
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

    /// Gets a permit, and waits for the pause that the circuit breaker asks for.
    ///
    /// # Errors
    /// The server keeps crashing.
    pub(super) async fn admitted(pool: &'a Pool, tenant: TenantKey) -> Result<Self, Failure> {
        let admitted = pool.breaker.admit(&tenant, Instant::now());
        let (id, pause) = admitted.map_err(|retry| Failure::crash_loop(&pool.server.name, retry))?;
        let mut permit = Self::new(pool, tenant, id);
        sleep(pause).await;
        // Too many others may have crashed during the pause.
        permit.renew()?;
        Ok(permit)
    }

    /// Renews the permit after a wait: crashes of other children during the wait do not hide a crash of this attempt.
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

    /// Hands the permit over to a spare, whose end tells the outcome of the attempt from now on.
    pub(super) fn adopts(self, spare: &PooledWorker) {
        let (pool, tenant) = (self.pool, self.tenant.clone());
        let id = self.into_id();
        *spare.permit.lock() = id;
        // The spare may have ended before its end could be attributed to this permit.
        let has_opened = spare.worker.opened().is_some();
        if has_opened || !spare.worker.is_alive() {
            pool.breaker.settled(&tenant, id, has_opened);
        }
    }

    /// Ends the attempt: no child could be started, which counts as a crash.
    pub(super) fn fails(mut self) {
        self.id.take().into_iter().for_each(|id| self.pool.crashed(&self.tenant, id));
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        self.id.inspect(|id| self.pool.breaker.settled(&self.tenant, *id, false));
    }
}
