//! The head of a request: its method, target and headers, and whose request it is.

use std::net::IpAddr;
use std::ops::Deref;

use http::request::Parts;

use super::peer::Peer;

/// The head of a request, with the connection that it came on.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    parts: &'a Parts,
    peer: &'a Peer,
}

impl<'a> RequestHead<'a> {
    /// The head of a request that came on the connection of `peer`.
    pub fn new(parts: &'a Parts, peer: &'a Peer) -> Self {
        Self { parts, peer }
    }

    /// The address of the client.
    pub fn client(&self) -> IpAddr {
        self.peer.address
    }

    /// Notes that the request is authenticated, and with it the connection.
    pub fn authenticate(&self) {
        self.peer.place.authenticate();
    }
}

impl Deref for RequestHead<'_> {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
    }
}
