//! Who calls a gateway: its address, and perhaps a credential and a server's name.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Bystander, Connection, Reply, Request, Response, Sse, Streamable};

/// Sends requests, each on a connection of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    key: Option<String>,
    base: String,
    /// The address that it calls from; `None` for the usual one.
    source: Option<Ipv4Addr>,
}

impl Caller {
    /// A caller without a credential.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, key: None, base: String::new(), source: None }
    }

    /// The same with an API key or token, sent as `Authorization: Bearer`.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same for a named server: paths begin with `/servers/{name}`.
    pub(crate) fn server(&self, name: &str) -> Self {
        Self { base: format!("/servers/{name}"), ..self.clone() }
    }

    /// The path of an endpoint: `/mcp`, `/sse` or `/messages`, of the server that was named.
    pub(crate) fn path(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", self.base)
    }

    /// The same from another address of this machine, 127.0.0.`last`.
    pub(crate) fn from(&self, last: u8) -> Self {
        Self { source: Some(Ipv4Addr::new(127, 0, 0, last)), ..self.clone() }
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Connection {
        match self.source {
            Some(source) => Connection::open_from(source, self.address).await,
            None => Connection::open(self.address).await,
        }
    }

    /// A request on the wire, with the credential.
    pub(crate) fn signed(&self, mut request: Request) -> Vec<u8> {
        if let Some(key) = &self.key {
            request = request.default_header("Authorization", &format!("Bearer {key}"));
        }
        request.bytes(self.address)
    }

    /// Sends a request; the whole answer is still to come.
    pub(crate) async fn ask(&self, request: Request) -> Connection {
        let mut connection = self.connect().await;
        connection.write(&self.signed(request)).await;
        connection
    }

    /// Sends a request; the answer's body is still to be read.
    pub(crate) async fn open(&self, request: Request) -> Response {
        self.ask(request).await.response().await
    }

    /// Sends a request, and reads the whole answer.
    pub(crate) async fn send(&self, request: Request) -> Reply {
        self.open(request).await.reply().await
    }

    /// A client on HTTP+SSE that has shaken hands.
    pub(crate) async fn sse(&self) -> Sse {
        Sse::open(self).await.initialized("2024-11-05").await
    }

    /// A client on Streamable HTTP that has shaken hands.
    pub(crate) async fn streamable(&self) -> Streamable {
        Streamable::initialize(self, "2025-11-25").await
    }

    /// Two clients who should not notice what the test does.
    pub(crate) async fn bystander(&self) -> Bystander {
        Bystander::of(self).await
    }
}
