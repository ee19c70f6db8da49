//! The head of a request: its method, target and headers, and whose request it is.

use std::net::IpAddr;
use std::ops::Deref;

use http::StatusCode;
use http::request::Parts;

use super::connection_memory::Unauthenticated;
use super::forwarded::{InvalidForwarded, client};
use super::peer::Peer;
use super::problem::{Reply, problem};
use crate::config::{Proxies, TenantId};
use crate::telemetry::Cause;

/// The head of a request, with the connection that it came on.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    parts: &'a Parts,
    peer: &'a Peer,
    charge: &'a Unauthenticated,
    /// The address of the client.
    pub client: IpAddr,
}

impl<'a> RequestHead<'a> {
    /// The head of a request that came on the connection of `peer`, behind these proxies, and what the request is
    /// charged for until it is authenticated.
    ///
    /// # Errors
    /// A header of a trusted proxy about the client cannot be read.
    pub fn new(
        parts: &'a Parts,
        peer: &'a Peer,
        charge: &'a Unauthenticated,
        proxies: &Proxies,
    ) -> Result<Self, InvalidForwarded> {
        Ok(Self { parts, peer, charge, client: client(peer.address, &parts.headers, proxies)? })
    }

    /// Notes that the request is authenticated for a tenant, and with it the connection. From now on the tenant is
    /// charged for it.
    pub fn authenticate(&self, tenant: &TenantId) {
        drop(self.charge.take());
        self.peer.place.authenticate(tenant);
    }
}

impl Deref for RequestHead<'_> {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
    }
}

/// Refuses a request with status 400, because a trusted proxy has sent a header that cannot be read. Logs the fault.
pub fn refuse_forwarded(error: InvalidForwarded) -> Reply {
    if Cause::new("a header of a trusted proxy could not be read", "http.trusted_proxies").is_news(1) {
        tracing::warn!(%error, "a header of a trusted proxy could not be read (http.forwarded_header)");
    }
    let text = format!("{error}; see to it that the proxy writes addresses (http.forwarded_header)");
    problem(StatusCode::BAD_REQUEST, &text)
}
