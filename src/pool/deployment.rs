//! A deployment: a server as one configuration has it, with the pool that runs its children. A session keeps the
//! deployment that it was opened on; when the configuration of the server changes, new sessions get another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::DropGuard;

use super::pool::Pool;
use crate::config::{Server, ServerName};
use crate::telemetry::ServerMetrics;

/// The current deployment of each server.
pub type Deployments = BTreeMap<ServerName, Arc<Deployment>>;

/// A server as one configuration has it. When the last reference is dropped, the children of the pool are stopped.
pub struct Deployment {
    /// The configuration.
    pub server: Arc<Server>,
    /// The children.
    pub pool: Arc<Pool>,
    /// The metrics, which all deployments of a server share.
    pub metrics: ServerMetrics,
    /// Stops the pool when it is dropped.
    pub(super) _stop: DropGuard,
}
