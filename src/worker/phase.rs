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
    /// Somebody waits for room under `pool.max_children`, and the child is idle.
    PoolRoom,
    /// Somebody waits for room under `tenants.NAME.limits.max_children`, and the child is idle.
    TenantRoom,
    /// The memory of the tenant (`tenants.NAME.limits.memory`), or of the machine, is nearly used up, and the child is idle.
    MemoryRoom,
    /// The child has been idle for `sessions.child_idle_timeout`.
    ChildIdleTimeout,
}

impl Due {
    /// Whether the child goes because it is idle, though sessions are on it. Each of them gets another child when it
    /// needs one, and no earlier.
    pub fn is_idleness(self) -> bool {
        matches!(self, Self::PoolRoom | Self::TenantRoom | Self::MemoryRoom | Self::ChildIdleTimeout)
    }

    /// The word for the reason in the log and in metrics: the last part of the setting's key, with `tenant_` for a
    /// tenant's.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::MaxRequests => "max_requests",
            Self::MaxAge => "max_age",
            Self::MaxRss => "max_rss",
            Self::IdleTimeout => "idle_timeout",
            Self::PoolRoom => "max_children",
            Self::TenantRoom => "tenant_max_children",
            Self::MemoryRoom => "memory",
            Self::ChildIdleTimeout => "child_idle_timeout",
        }
    }
}
