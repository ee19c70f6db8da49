//! A session: the identity of a client's conversation, its streams towards the client, and its link to the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::client_streams::ClientStreams;
use super::id::SessionId;
use super::link::{Client, Link, Received, Target};
use super::streams::Transport;
use crate::auth::Principal;
use crate::config::Server;
use crate::jsonrpc::{Envelope, Kind};
use crate::pool::Pool;
use crate::stream::{Budget, Cursor, Exchange, Expiry};
use crate::telemetry::{DropReason, ServerMetrics};
use crate::worker::{Failure, Refused, deliver};

/// What a session works with, besides its identity.
#[derive(Clone)]
pub(super) struct Surroundings {
    /// The children of the server.
    pub(super) pool: Arc<Pool>,
    /// The metrics of the server.
    pub(super) metrics: ServerMetrics,
    /// The bounds of each stream to the client.
    pub(super) stream_limits: Budget,
    /// The tracker of all tasks that the session spawns.
    pub(super) tasks: TaskTracker,
}

/// A client's conversation with a server.
pub struct Session {
    id: SessionId,
    principal: Principal,
    server: Arc<Server>,
    metrics: ServerMetrics,
    expiry: Expiry,
    client: Arc<ClientStreams>,
    link: Arc<Link>,
}

impl Session {
    /// A session without a stream and without a child.
    pub(super) fn new(
        id: SessionId,
        principal: Principal,
        server: Arc<Server>,
        transport: Transport,
        surroundings: Surroundings,
    ) -> Self {
        let Surroundings { pool, metrics, stream_limits, tasks } = surroundings;
        let client = Arc::new(ClientStreams::new(transport, stream_limits));
        let target = Target {
            server: Arc::clone(&server),
            principal: principal.clone(),
            label: id.public(),
            pool,
            metrics: metrics.clone(),
            tasks,
        };
        let link = Link::new(target, Arc::clone(&client) as Arc<dyn Client>);
        Self { id, principal, server, metrics, expiry: Expiry::default(), client, link }
    }

    /// The id of the session.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The principal that opened the session; no other may use it.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// When the newest credential shown for this session expires. The session's streams end then.
    pub fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    /// The server of the conversation.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// How the client is connected.
    pub fn transport(&self) -> Transport {
        self.client.transport
    }

    /// The negotiated protocol version; `None` before `initialize` has succeeded.
    pub fn version(&self) -> Option<String> {
        self.link.version()
    }

    /// Opens the stream for messages that answer no call, and ends the one before it.
    pub fn open_stream(&self) -> Cursor {
        self.client.open()
    }

    /// The open stream, as the exchange of every call (HTTP+SSE).
    pub fn stream(&self) -> Option<Arc<Exchange>> {
        self.client.current()
    }

    /// Takes one message of the client, as [`Link::receive`] does.
    pub fn receive(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Received {
        self.link.receive(message, envelope, exchange)
    }

    /// Answers a request that was refused with an error. Any other refused message is dropped and counted.
    pub fn refuse(&self, envelope: &Envelope<'_>, reason: Refused, exchange: &Exchange) {
        match envelope.raw_id().filter(|_| envelope.kind == Kind::Request) {
            Some(id) => self.answer(exchange, Failure::refused(reason).response(&id)),
            None => {
                self.metrics.dropped(DropReason::Refused);
                tracing::debug!(server = %self.server.name, session = %self.id.public(), %reason, "a message was not taken");
            }
        }
    }

    /// Delivers an answer of the gateway's own.
    pub fn answer(&self, exchange: &Exchange, message: Bytes) {
        deliver(&self.metrics, exchange, message);
    }

    /// The time since the client last used the session; `None` while a stream is open, or something is in flight or queued.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        // Both are asked each time: what is in use now was last used now.
        let (link, streams) = (self.link.idle_for(), self.client.idle_for());
        Some(link?.min(streams?))
    }

    /// Ends the session: the link, which answers everything in flight or queued, and then the stream. Idempotent.
    pub(super) fn end(&self) {
        self.link.end();
        self.client.close();
    }

    /// Whether calls are in flight or queued, or tasks are running.
    pub(super) fn is_busy(&self) -> bool {
        self.link.is_busy()
    }
}
