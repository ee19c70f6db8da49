//! The head of a request: its method, target and headers, and whose request it is.

use std::net::IpAddr;
use std::ops::Deref;

use http::request::Parts;

use super::connection_memory::Unauthenticated;
use super::peer::Peer;

/// The head of a request, with the connection that it came on.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    parts: &'a Parts,
    peer: &'a Peer,
    charge: &'a Unauthenticated,
}

impl<'a> RequestHead<'a> {
    /// The head of a request that came on the connection of `peer`, and what the request is charged for until it is
    /// authenticated.
    pub fn new(parts: &'a Parts, peer: &'a Peer, charge: &'a Unauthenticated) -> Self {
        Self { parts, peer, charge }
    }

    /// The address of the client.
    pub fn client(&self) -> IpAddr {
        self.peer.address
    }

    /// Notes that the request is authenticated, and with it the connection. From now on the tenant is charged for it.
    pub fn authenticate(&self) {
        drop(self.charge.take());
        self.peer.place.authenticate();
    }
}

impl Deref for RequestHead<'_> {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
    }
}
