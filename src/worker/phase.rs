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

/// What makes a child due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The child has had `pool.max_requests` calls.
    MaxRequests,
    /// The child is as old as `pool.max_age`.
    MaxAge,
    /// The child uses `pool.max_rss` of memory.
    MaxRss,
    /// A shared child has had no session for `pool.idle_timeout`.
    IdleTimeout,
}

impl Due {
    /// The key of the configuration that says so, without its table.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::MaxRequests => "max_requests",
            Self::MaxAge => "max_age",
            Self::MaxRss => "max_rss",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}
