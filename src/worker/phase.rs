//! The states of a child, as operators see them, and the reasons to retire a child.

/// The state of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The child has not answered `initialize`.
    Starting,
    /// Nothing is in flight, and the child is kept for no task.
    Ready,
    /// Something is in flight, in either direction, or the child is kept for a task.
    Busy,
    /// The child takes no more calls, or is being stopped.
    Draining,
    /// The child has ended.
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

/// The reason to retire a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The child has received `pool.max_requests` client requests.
    MaxRequests,
    /// The child is as old as `pool.max_age`.
    MaxAge,
    /// The child uses `pool.max_rss` of memory.
    MaxRss,
    /// A shared child has had no session for `pool.idle_timeout`.
    IdleTimeout,
}

impl Due {
    /// The key of the setting in the table `pool`.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::MaxRequests => "max_requests",
            Self::MaxAge => "max_age",
            Self::MaxRss => "max_rss",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}
