//! The limits of a listener and of its connections.

use std::time::Duration;

use super::connection_memory;
use crate::config::Http;
use crate::memory::Memory;

/// The largest number of connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 64;
/// The part of the connections that is only for those on which a request was authenticated: one of this many.
const RESERVE: usize = 8;

/// The limits of a listener and of each of its connections, as one configuration sets them. A connection keeps the
/// limits with which it was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many connections there may be.
    pub room: Room,
    /// The longest time for the first bytes of a connection, for the headers of a request, and without a request. Also
    /// the interval of pings with HTTP/2.
    pub headers: Duration,
    /// The longest time that a write may make no progress.
    pub stall: Duration,
    /// The longest time for reading the rest of a body whose request was answered early.
    pub linger: Duration,
}

/// How many connections a listener may have.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The largest number of connections.
    pub most: usize,
    /// How many of these are only for connections on which a request was authenticated.
    pub reserve: usize,
    /// The largest number of connections of one network, beside the rule that it leaves as many to the others. `None`
    /// for the rule alone.
    pub most_per_address: Option<usize>,
}

impl Limits {
    /// The limits of the public listener. There are no more connections than the memory budget has room for.
    pub fn of_clients(http: &Http, memory: &Memory) -> Self {
        let most = http.max_connections.min(connection_memory::room(memory));
        Self {
            room: Room { most, reserve: most / RESERVE, most_per_address: http.max_connections_per_address },
            headers: http.header_timeout,
            stall: http.slow_client_timeout,
            linger: http.body_timeout,
        }
    }

    /// The limits of the admin listener, to which nobody authenticates: nothing is reserved.
    pub fn of_operators(http: &Http) -> Self {
        Self {
            room: Room { most: ADMIN_CONNECTIONS, reserve: 0, most_per_address: None },
            headers: http.header_timeout,
            stall: http.slow_client_timeout,
            linger: http.body_timeout,
        }
    }
}
