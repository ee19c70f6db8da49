//! The description of a worker to spawn.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Payer;
use crate::config::Server;
use crate::process::sandbox::Reach;
use crate::process::{Ceilings, Guardian, Lookups, Origin, Owner};
use crate::telemetry::ServerMetrics;

/// The description of a worker to spawn.
pub struct Spec {
    /// The process that starts the child.
    pub guardian: Guardian,
    /// The server to run.
    pub server: Arc<Server>,
    /// The paths that the sandbox opens to all children of the server.
    pub reach: Arc<Reach>,
    /// The threads that look up the program and the working directory.
    pub lookups: Lookups,
    /// The server, tenant and session of the child, for logs.
    pub origin: Origin,
    /// The owner of the child's working directory, where the server has one for each owner.
    pub owner: Owner,
    /// Who is charged for what the gateway holds of the child.
    pub payer: Payer,
    /// The limits on resources that the child counts for.
    pub ceilings: Ceilings,
    /// How long an exclusive child waits for a client that does not read, before the client's stream is cut.
    pub slow_client_timeout: Duration,
    /// The metrics of the server.
    pub metrics: ServerMetrics,
    /// The tasks that shutdown waits for.
    pub tasks: TaskTracker,
    /// Cancelled when there is no time left to stop politely.
    pub kill: CancellationToken,
}
