//! The limits of a listener and of its connections.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connection_memory;
use super::network::Network;
use crate::config::{Http, Proxies};
use crate::memory::Memory;

/// The largest number of connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 64;
/// The part of the connections that is only for those on which a request was authenticated: one of this many.
const RESERVE: usize = 8;
/// The seconds after which a client that was refused for lack of room should try again.
pub const RETRY_SECONDS: u64 = 5;

/// The limits of a listener and of each of its connections, as one configuration sets them. A connection keeps the
/// limits with which it was accepted.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many connections there may be.
    pub room: Room,
    /// The proxies in front of the listener.
    pub proxies: Arc<Proxies>,
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
    /// The limits of the public listener.
    pub fn of_clients(http: &Http, memory: &Memory) -> Self {
        Self {
            room: Room::of_clients(http, memory),
            proxies: Arc::clone(&http.proxies),
            headers: http.header_timeout,
            stall: http.slow_client_timeout,
            linger: http.body_timeout,
        }
    }

    /// The limits of the admin listener, to which nobody authenticates: nothing is reserved.
    pub fn of_operators(http: &Http) -> Self {
        Self {
            room: Room { most: ADMIN_CONNECTIONS, reserve: 0, most_per_address: None },
            proxies: Arc::default(),
            headers: http.header_timeout,
            stall: http.slow_client_timeout,
            linger: http.body_timeout,
        }
    }

    /// Whether an address has no share of its own: it is this machine's or a trusted proxy's, and stands for many.
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        Network::of(address).is_this_machine() || self.proxies.trusts(address)
    }
}

impl Room {
    /// The room for clients. There are no more connections than the memory budget has room for.
    pub fn of_clients(http: &Http, memory: &Memory) -> Self {
        let most = http.max_connections.min(connection_memory::room(memory));
        Self { most, reserve: most / RESERVE, most_per_address: http.max_connections_per_address }
    }
}
