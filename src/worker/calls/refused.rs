//! The reasons why a child does not take a message.

use crate::memory::Exhausted;

/// The reason why a child does not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many calls are in flight, or too many bytes wait in the stdin queue.
    #[error("the server is busy: too many calls are waiting for it; try again in a moment")]
    Busy,
    /// The session, its principal or its tenant has its fair share of a shared child's calls or stdin queue.
    #[error(
        "this session has its share of a server that others use as well: too many calls of the session, or of its \
         tenant or principal, are waiting (limits.max_in_flight, limits.stdin_queue); try again when some are answered"
    )]
    Share,
    /// The account that the message is charged to has no room for it.
    #[error("the gateway has no room for the message: {0}; try again when some of your messages are answered")]
    Memory(#[from] Exhausted),
    /// The child has ended, or the session has left the child or was handed over.
    #[error("the server has ended")]
    Ended,
    /// The child is retired: it finishes the calls in flight, and takes no more.
    #[error("the server is being replaced; try again in a moment")]
    Retired,
    /// The session has ended before the message came.
    #[error("the session has ended: open another one")]
    SessionEnded,
}

impl Refused {
    /// Whether the message may be taken later: `Busy`, `Share` or `Memory`.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Busy | Self::Share | Self::Memory(_))
    }
}
