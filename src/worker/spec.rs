//! The parts that a worker is made of.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Server;
use crate::process::sandbox::Reach;
use crate::process::{Ceilings, Guardian, Lookups, Origin, Owner};
use crate::telemetry::ServerMetrics;

/// What a worker is made of.
pub struct Spec {
    /// What starts the child.
    pub guardian: Guardian,
    /// The server to run.
    pub server: Arc<Server>,
    /// What is open to all children of that server.
    pub reach: Arc<Reach>,
    /// Where its program is looked up.
    pub lookups: Lookups,
    /// Whose it is.
    pub origin: Origin,
    /// Whose working directory it gets, where its server has any.
    pub owner: Owner,
    /// What it counts for.
    pub ceilings: Ceilings,
    /// A client that takes nothing for this long is cut.
    pub slow_client_timeout: Duration,
    /// Where it is counted.
    pub metrics: ServerMetrics,
    /// What waits for it at shutdown.
    pub tasks: TaskTracker,
    /// Cancelled when there is no time left to stop politely.
    pub kill: CancellationToken,
}
