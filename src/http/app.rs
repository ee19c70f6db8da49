//! What request handlers share: the current snapshot of the configuration, and what runs whatever the configuration says.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::snapshot::Snapshot;
use crate::session::Conversations;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// What request handlers share: one for each gateway.
pub struct App {
    /// What the configuration decides. Replaced as a whole while the gateway runs.
    pub snapshot: ArcSwap<Snapshot>,
    /// All conversations.
    pub conversations: Arc<dyn Conversations>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway drains.
    pub shutdown: Shutdown,
}

impl App {
    /// Whether the gateway would open a session now: it does not drain, and `sessions.max` is not reached.
    pub fn is_ready(&self) -> bool {
        !self.shutdown.drain.is_cancelled() && self.conversations.has_room(self.snapshot.load().sessions.max)
    }
}
