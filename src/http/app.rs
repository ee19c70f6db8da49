//! State that request handlers share: the current snapshot of the configuration, and the parts that outlive a
//! configuration.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::forwarded_requests::ForwardedRequests;
use super::snapshot::Snapshot;
use crate::memory::Memory;
use crate::session::Conversations;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// State that request handlers share, one value per gateway.
pub struct App {
    /// The current snapshot of the configuration, which is replaced as a whole while the gateway runs.
    pub snapshot: ArcSwap<Snapshot>,
    /// All conversations.
    pub conversations: Arc<dyn Conversations>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The requests in flight that came through trusted proxies.
    pub forwarded: Arc<ForwardedRequests>,
    /// The budget of bytes.
    pub memory: Memory,
    /// The signals that the gateway drains, and that it ends.
    pub shutdown: Shutdown,
}

impl App {
    /// Whether the gateway could open a session now: the gateway is not draining, and `sessions.max` is not reached.
    pub fn is_ready(&self, snapshot: &Snapshot) -> bool {
        !self.shutdown.drain.is_cancelled() && self.conversations.has_room(snapshot.sessions.max)
    }
}
