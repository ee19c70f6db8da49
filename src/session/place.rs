//! The place of a session in the index of sessions by use.

use tokio::time::Instant;

/// The number of a session: unique in its gateway.
pub(super) type SessionNumber = u64;

/// The place of a session in the index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The noted use. The real one may be later.
    pub(super) used: Instant,
    /// The time of the next look at the session's idle time-out.
    pub(super) due: Instant,
}
