//! Permits of the circuit breaker: leave for one attempt to have a child, and the breaker's state as operators see it.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::Pool;
use super::breaker::{Admission, Broken, PermitId};
use super::child::PooledWorker;
use super::permits::Whose;
use crate::config::Isolation;
use crate::worker::Failure;

/// Leave of the circuit breaker for one attempt to have a child. A permit that is dropped unused counts as no attempt.
pub(super) struct BreakerPermit<'a> {
    pool: &'a Pool,
    whose: Whose,
    /// `None` once the outcome of the attempt is known.
    id: Option<PermitId>,
}

impl BreakerPermit<'_> {
    /// Asks again after a wait: crashes of other children since then count for this attempt.
    ///
    /// # Errors
    /// The server keeps crashing.
    pub(super) fn renew(&mut self) -> Result<(), Failure> {
        let Some(id) = self.id else { return Ok(()) };
        let renewed = self.pool.breaker.renew(&self.whose, id, Instant::now());
        self.id = Some(renewed.map_err(|retry| Failure::crash_loop(&self.pool.server.name, retry))?);
        Ok(())
    }

    /// Hands the permit's number over to a new child, whose end tells the outcome of the attempt.
    pub(super) fn into_id(mut self) -> PermitId {
        self.id.take().unwrap_or_default()
    }

    /// Ends the attempt with a spare, whose fate tells the outcome from now on.
    pub(super) fn adopts(self, spare: &Arc<PooledWorker>) {
        let (pool, whose) = (self.pool, self.whose.clone());
        let id = self.into_id();
        spare.set_permit(id);
        if spare.worker.opened().is_some() {
            pool.breaker.opened(&whose, id);
        } else if !spare.worker.is_alive() {
            // The spare may have ended before its end could be attributed to this permit.
            pool.breaker.abandoned(&whose, id);
        }
    }

    /// Ends the attempt: no child could be started.
    pub(super) fn fails(mut self) {
        let Some(id) = self.id.take() else { return };
        self.pool.breaker.crashed(&self.whose, id, self.pool.answered_for(&self.whose), Instant::now());
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        self.id.inspect(|id| self.pool.breaker.abandoned(&self.whose, *id));
    }
}

impl Pool {
    /// Wraps the number of a permit that the breaker has granted.
    pub(super) fn permit(&self, whose: Whose, id: PermitId) -> BreakerPermit<'_> {
        BreakerPermit { pool: self, whose, id: Some(id) }
    }

    /// Gets a permit, after the pause that the circuit breaker asks for.
    ///
    /// # Errors
    /// The server keeps crashing.
    pub(super) async fn admitted(&self, whose: Whose) -> Result<BreakerPermit<'_>, Failure> {
        let refused = |retry| Failure::crash_loop(&self.server.name, retry);
        match self.breaker.admit(&whose, Instant::now()) {
            Admission::After(id, pause) => {
                let permit = self.permit(whose, id);
                sleep(pause).await;
                // The permit keeps its generation, but too many others may have crashed during the pause.
                self.breaker.renew(&permit.whose, id, Instant::now()).map_err(refused)?;
                Ok(permit)
            }
            Admission::Refused(retry) => Err(refused(retry)),
        }
    }

    /// The circuits of this server that are open or half-open, by tenant.
    pub(super) fn broken(&self) -> Vec<(Whose, Broken)> {
        self.breaker.broken(Instant::now())
    }

    /// A line for operators about each circuit that is open or half-open.
    pub(super) fn crash_loops(&self) -> Vec<String> {
        let name = &self.server.name;
        let who = |whose: Whose| match whose {
            Some(tenant) => format!("{name} for {tenant}"),
            None if self.server.isolation == Isolation::Shared => format!("{name}, for all"),
            None => format!("{name}, its spares"),
        };
        let says = |(whose, broken)| match broken {
            Broken::Open(left) => format!("crash loop: {}, next attempt in {:.1} s", who(whose), left.as_secs_f64()),
            Broken::HalfOpen => format!("half-open: {}, the next attempt decides", who(whose)),
        };
        self.broken().into_iter().map(says).collect()
    }

    /// Calls of clients that the living children of a tenant have answered.
    pub(super) fn answered_for(&self, whose: &Whose) -> u64 {
        let inventory = self.inventory.lock();
        let theirs = inventory.children.iter().filter(|child| child.worker.tenant() == *whose);
        theirs.map(|child| child.worker.answered()).sum()
    }
}
