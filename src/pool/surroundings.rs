//! What all pools of a gateway share.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::children::Children;
use crate::memory::Memory;
use crate::permits::Permits;
use crate::process::{Ceilings, Guardian};

/// What all pools of a gateway share; cheap to clone.
#[derive(Clone)]
pub struct Surroundings {
    /// The guardian, which starts children.
    pub guardian: Guardian,
    /// The limits that the children of a tenant have together.
    pub ceilings: Ceilings,
    /// The bounds on how many children and starts all pools have at once. Each pool claims its capacity here, and waits
    /// here while there is none. Sessions are claimed here as well.
    pub permits: Permits,
    /// The budget of bytes, with an account of each tenant, and of each server for children that belong to no tenant.
    pub memory: Memory,
    /// The living children of all pools, among which an idle one makes room for a request that waits.
    pub children: Children,
    /// How long an exclusive child waits for room in the full stream of a client that does not read, before the stream
    /// is cut. A shared child does not wait.
    pub slow_client_timeout: Duration,
    /// The largest number of starts under way at the same time, over all servers. Spares get half of them, rounded up.
    pub spawn_concurrency: usize,
    /// The tasks that a shutdown waits for.
    pub tasks: TaskTracker,
    /// Cancelled at shutdown: children end, and no more are started.
    pub draining: CancellationToken,
    /// Cancelled when children that are stopping are to be killed.
    pub kill: CancellationToken,
}
