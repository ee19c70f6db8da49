//! The states of a worker, as operators see them.

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its child has not answered `initialize`.
    Starting,
    /// Nothing is in flight.
    Ready,
    /// Calls are in flight.
    Busy,
    /// It takes no more, and is about to end.
    Draining,
    /// Its child is gone.
    Exited,
}

impl Phase {
    /// The word for it, in metrics and in the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Exited => "exited",
        }
    }
}
