//! The other end of a connection.

use std::net::IpAddr;

use super::connection_table::Place;

/// The other end of one connection: a client, or a proxy of clients.
#[derive(Debug)]
pub struct Peer {
    /// The address, never an IPv4 address mapped into IPv6.
    pub address: IpAddr,
    /// The place of the connection among those of its listener.
    pub place: Place,
}
