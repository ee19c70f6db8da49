//! The way into a pool: grants leases, and learns from them which spares will be wanted.

use tokio::time::Instant;

use super::pool::Pool;
use super::wanted::{Granted, Wanted};
use super::{exclusive, shared};
use crate::config::PoolMode;
use crate::mcp::protocol_version;
use crate::worker::{Failure, Opening};

impl Pool {
    /// Leases a worker: one that is shared, a spare, or a new one.
    ///
    /// # Errors
    /// The child does not start, there is no capacity in time, or the server keeps crashing.
    pub async fn lease(&self, wanted: &Wanted) -> Result<Granted, Failure> {
        let result = match self.is_exclusive() {
            true => exclusive::lease(self, wanted).await,
            false => shared::lease(self, wanted).await,
        };
        let answer = result.as_ref().ok().and_then(|granted| granted.answer.as_ref());
        if self.server.pool.mode != PoolMode::Ondemand
            && answer.is_some_and(|answer| protocol_version(answer).is_some())
            && let Some(initialize) = &wanted.initialize
            && let Some(opening) = Opening::of_spare(initialize, self.audience())
        {
            self.inventory.lock().demand.note(opening, Instant::now());
        }
        self.changed.notify_one();
        result
    }
}
