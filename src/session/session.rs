//! A session: the identity of a client's conversation, its streams towards the client, and its link to the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::conversation::Conversation;
use super::id::SessionId;
use super::link::{Client, Link, Target};
use super::place::{Place, SessionNumber};
use super::streams::{Streams, Transport};
use crate::auth::Principal;
use crate::jsonrpc::{Envelope, Kind};
use crate::memory::{Account, Charge};
use crate::stream::{Budget, Cursor, Exchange, Expiry};
use crate::telemetry::{DropReason, MemoryUse};
use crate::worker::{Failure, Refused, deliver};

/// A client's conversation with a server.
pub(super) struct Session {
    /// The id that the client sends with every message.
    id: SessionId,
    /// The number that the index knows the session by.
    number: SessionNumber,
    /// The place in the index; `None` outside of the index. Changed under the lock of the index only.
    place: Mutex<Option<Place>>,
    /// When the newest credential of the client expires; the streams end then.
    expiry: Expiry,
    /// The streams to the client.
    pub(super) client: Arc<Streams>,
    /// The way to the server's children. Its target has the owner of the session: no other principal may use the
    /// session.
    pub(super) link: Arc<Link>,
    /// The charge for the record of the session.
    _record: Charge,
}

impl Session {
    /// A session without a stream and without a child. `budget` bounds each stream to the client. `record` is the
    /// charge for the session itself.
    pub(super) fn new(
        (id, number): (SessionId, SessionNumber),
        transport: Transport,
        budget: Budget,
        target: Target,
        record: Charge,
    ) -> Self {
        let client = Arc::new(Streams::new(transport, budget, target.account.clone()));
        let link = Link::new(target, Arc::clone(&client) as Arc<dyn Client>);
        Self { id, number, place: Mutex::default(), expiry: Expiry::default(), client, link, _record: record }
    }

    /// The number that the index knows the session by.
    pub(super) fn number(&self) -> SessionNumber {
        self.number
    }

    /// The place in the index, for the index alone.
    pub(super) fn place(&self) -> &Mutex<Option<Place>> {
        &self.place
    }

    /// The owner.
    pub(super) fn principal(&self) -> &Principal {
        &self.link.target().principal
    }

    /// Whether a stream is open, and when the client last used the session. `None` while something is in flight or
    /// queued, and once the session has ended.
    pub(super) fn last_use(&self) -> Option<(bool, Instant)> {
        let (link, (has_stream, streams)) = (self.link.last_use(), self.client.last_use());
        Some((has_stream, link?.max(streams)))
    }

    /// The time since the client last used the session; `None` while a stream is open, or something is in flight or
    /// queued.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        self.last_use().filter(|(has_stream, _)| !has_stream).map(|(_, at)| at.elapsed())
    }

    /// Ends the session, unless something is in flight or queued. Returns whether this call has ended the session.
    pub(super) fn end_if_unused(&self) -> bool {
        let has_ended = self.link.end_if_unused();
        if has_ended {
            self.client.close();
        }
        has_ended
    }

    /// Ends the session: the link, which answers everything in flight or queued, and then the stream. Idempotent.
    pub(super) fn end(&self) {
        self.link.end();
        self.client.close();
    }

    /// Answers a request that the link has refused with an error. Any other refused message is dropped and counted.
    fn refuse(&self, envelope: &Envelope<'_>, reason: Refused, exchange: &Exchange) {
        if matches!(reason, Refused::Memory(_)) {
            self.link.target().deployment.metrics.memory_refused(MemoryUse::Stdin);
        }
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

    fn account(&self) -> &Account {
        &self.link.target().account
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
