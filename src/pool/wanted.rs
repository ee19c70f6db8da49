//! What a caller asks of a pool, and what the caller gets: the two ends of [`Pool::lease`](super::Pool::lease).

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::auth::Principal;
use crate::worker::{Lease, LeaseHolder};

/// A caller's request for a lease.
pub struct Wanted {
    /// The principal that the child works for.
    pub principal: Principal,
    /// The caller's name for log lines, such as the public part of a session's id.
    pub caller: Arc<str>,
    /// The client's `initialize` request. With `None` the child hears no `initialize`, as a stateless request needs it.
    pub initialize: Option<Bytes>,
    /// Whether the caller has leased a child before, which is gone or going. Its client knows the answer to
    /// `initialize`.
    pub is_restart: bool,
    /// The caller's leases whose workers are being replaced: the new worker may inherit the capacity of one.
    pub replaces: Vec<Arc<Lease>>,
    /// The receiver of the server's requests and notifications.
    pub holder: Weak<dyn LeaseHolder>,
}

/// A lease that a pool has granted.
pub struct Granted {
    /// The lease, which sends messages to the child.
    pub lease: Arc<Lease>,
    /// The child's answer to `initialize`, whatever its id; `None` if the request had no `initialize`. An exclusive
    /// child may have answered with an error, and is of no use then.
    pub answer: Option<Bytes>,
}
