//! A session: the identity of a client's conversation, its streams towards the client, and its link to the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::conversation::Conversation;
use super::id::SessionId;
use super::link::{Client, Link, Target};
use super::streams::{Streams, Transport};
use crate::jsonrpc::{Envelope, Kind};
use crate::stream::{Budget, Cursor, Exchange, Expiry};
use crate::telemetry::DropReason;
use crate::worker::{Failure, Refused, deliver};

/// A client's conversation with a server.
pub(super) struct Session {
    /// The id that the client sends with every message.
    id: SessionId,
    /// When the newest credential of the client expires; the streams end then.
    expiry: Expiry,
    /// The streams to the client.
    pub(super) client: Arc<Streams>,
    /// The way to the server's children. Its target has the owner of the session: no other principal may use the
    /// session.
    pub(super) link: Arc<Link>,
}

impl Session {
    /// A session without a stream and without a child. `budget` bounds each stream to the client.
    pub(super) fn new(id: SessionId, transport: Transport, budget: Budget, target: Target) -> Self {
        let client = Arc::new(Streams::new(transport, budget));
        let link = Link::new(target, Arc::clone(&client) as Arc<dyn Client>);
        Self { id, expiry: Expiry::default(), client, link }
    }

    /// The time since the client last used the session; `None` while a stream is open, or something is in flight or
    /// queued.
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

    /// Answers a request that the link has refused with an error. Any other refused message is dropped and counted.
    fn refuse(&self, envelope: &Envelope<'_>, reason: Refused, exchange: &Exchange) {
        match envelope.raw_id().filter(|_| envelope.kind == Kind::Request) {
            Some(id) => self.answer(exchange, Failure::refused(reason).response(&id)),
            None => {
                let deployment = &self.link.target().deployment;
                deployment.metrics.dropped(DropReason::Refused);
                tracing::debug!(server = %deployment.server.name, session = %self.id.public(), %reason, "a message was not taken");
            }
        }
    }
}

impl Conversation for Session {
    fn id(&self) -> &SessionId {
        &self.id
    }

    fn version(&self) -> Option<String> {
        self.link.version()
    }

    fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    fn give(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Result<(), Refused> {
        self.link.receive(message, envelope, exchange).inspect_err(|reason| self.refuse(envelope, *reason, exchange))
    }

    fn answer(&self, exchange: &Exchange, response: Bytes) {
        deliver(&self.link.target().deployment.metrics, exchange, response);
    }

    fn open_stream(&self) -> Cursor {
        self.client.open()
    }

    fn stream(&self) -> Option<Arc<Exchange>> {
        self.client.current()
    }
}
