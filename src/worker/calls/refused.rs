//! The reasons why a child does not take a message.

/// Why a worker does not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many calls in flight, or too many bytes waiting for the child.
    #[error("the server is busy: too many calls are waiting for it; try again in a moment")]
    Busy,
    /// As much of a session waits for the child as one of those that share it may have waiting.
    #[error(
        "this session has its share of a server that others use as well: too many of its calls are waiting \
         (limits.max_in_flight, limits.stdin_queue); try again when some are answered"
    )]
    Share,
    /// The child has ended.
    #[error("the server has ended")]
    Ended,
    /// The child finishes what is in flight, and takes no more calls.
    #[error("the server is being replaced; try again in a moment")]
    Retired,
}

impl Refused {
    /// Whether the child is there, and takes no more for the moment.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Busy | Self::Share)
    }
}
