//! What connections, and requests that have not been authenticated, take of memory: charged before it is taken, as much
//! as it can become, to a part of the budget that tenants do not use.

use http::request::Parts;
use http::{HeaderMap, Request, Uri, Version};
use parking_lot::Mutex;

use super::network::Network;
use crate::memory::{Account, Charge, Exhausted, Memory};

/// The largest buffer, in bytes, into which a connection of HTTP/1 is read. The headers of a request fit into it.
pub const READ_BUFFER: usize = 32 << 10;
/// The bytes that the requests of a connection of HTTP/2 together may have sent without being read by a handler.
pub const WINDOW: u32 = 64 << 10;
/// The bytes of one response that HTTP/2 takes before the client reads them.
pub const SEND_BUFFER: usize = 64 << 10;
/// What a connection takes at most for requests, in bytes: its buffers and its task, and what was sent over HTTP/2 and
/// not read. Responses are charged to the tenant that they are for.
const CONNECTION: usize = READ_BUFFER + WINDOW as usize + (16 << 10);
/// What a request of HTTP/2 takes beside its headers, in bytes, until it is authenticated: its stream and its task.
const REQUEST: usize = 8 << 10;

/// What one connection is charged for.
#[derive(Debug)]
pub struct ConnectionMemory {
    _connection: Charge,
    /// The account of the client's network for requests that have not been authenticated.
    unauthenticated: Account,
}

/// The charge for a request that has not been authenticated. Empty for one that has been, and for one of HTTP/1, which
/// its connection covers.
#[derive(Debug, Default)]
pub struct Unauthenticated(Mutex<Option<Charge>>);

impl Unauthenticated {
    /// Takes the charge away.
    pub fn take(&self) -> Option<Charge> {
        self.0.lock().take()
    }
}

impl ConnectionMemory {
    /// Charges a connection of a client in `network`.
    ///
    /// # Errors
    /// All connections together take as much as they may.
    pub fn open(memory: &Memory, network: Network) -> Result<Self, Exhausted> {
        let _connection = memory.connections().charge(CONNECTION)?;
        Ok(Self { _connection, unauthenticated: memory.unauthenticated(&format!("{network:?}")) })
    }

    /// Charges a request, until it is authenticated.
    ///
    /// # Errors
    /// The requests of the client's network that have not been authenticated take as much as is left for the others.
    pub fn begin<B>(&self, request: &Request<B>) -> Result<Unauthenticated, Exhausted> {
        if request.version() <= Version::HTTP_11 {
            return Ok(Unauthenticated::default());
        }
        let charge = self.unauthenticated.charge(REQUEST + size(request.headers(), request.uri()))?;
        Ok(Unauthenticated(Mutex::new(Some(charge))))
    }
}

/// The number of connections that the budget has room for.
pub fn room(memory: &Memory) -> usize {
    memory.connections().most() / CONNECTION
}

/// The bytes that the headers of a request take beside the buffer of its connection.
pub fn size_of_head(parts: &Parts) -> usize {
    if parts.version <= Version::HTTP_11 { 0 } else { size(&parts.headers, &parts.uri) }
}

fn size(headers: &HeaderMap, uri: &Uri) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() + path
}
