//! What the lease and the reader do around the tables: they make frames before, and copy messages afterwards.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::jsonrpc::Envelope;
use crate::memory::Account;
use crate::worker::Refused;
use crate::worker::calls::{
    Ask, Draft, Incoming, LeaseId, Multiplexer, Notified, Outgoing, Reported, Standing, answer_frame,
    cancellation_frame,
};

impl Multiplexer {
    pub(super) fn ask(&mut self, peer: LeaseId, ask: &Ask<'_>, now: Instant) -> Result<Outgoing, Refused> {
        self.put(Draft::new(ask, peer, None, now)?)
    }

    pub(super) fn hear(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        now: Instant,
        timeout: Duration,
    ) -> Incoming {
        let incoming = self.receive(envelope, Reported::by(envelope), now, timeout);
        let account = Account::unlimited();
        let written = incoming.written(message, envelope, &account, |peer, task| self.owns_task(peer, task));
        match written {
            Incoming::Answer(answer, message) => Incoming::Answer(answer, message.unwrap()),
            Incoming::Inform(exchange, message) => Incoming::Inform(exchange, message.unwrap()),
            Incoming::Unsolicited(kind, message, number, peers) => {
                Incoming::Unsolicited(kind, message.unwrap(), number, peers)
            }
            Incoming::Withdrawn(withdrawn, message) => Incoming::Withdrawn(withdrawn, message.unwrap()),
            Incoming::Reply(frame) => Incoming::Reply(frame),
            Incoming::Drop(reason) => Incoming::Drop(reason),
            Incoming::Ignore => Incoming::Ignore,
        }
    }

    pub(super) fn cancellation(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<(u64, Bytes)> {
        let number = self.cancelled_by_client(peer, envelope)?;
        Some((number, cancellation_frame(number, envelope).freeze()))
    }

    pub(super) fn answer_to_child(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<(u64, Bytes)> {
        let (number, id) = self.server_requests.answered_with(peer, envelope)?;
        Some((number, answer_frame(&id, envelope).freeze()))
    }

    pub(super) fn with_harakiri(mut self, harakiri: Option<Duration>) -> Self {
        self.harakiri = harakiri;
        self
    }

    pub(super) fn with_cancel_grace(mut self, cancel_grace: Option<Duration>) -> Self {
        self.cancel_grace = cancel_grace;
        self
    }

    /// The level and the URIs that a session has been granted.
    pub(in crate::worker) fn granted(&self, peer: LeaseId) -> (Option<&'static str>, BTreeSet<String>) {
        let (mut level, mut uris) = (None, BTreeSet::new());
        for standing in self.sharing.granted(peer) {
            match standing {
                Standing::Level(granted) => level = Some(granted.as_str()),
                Standing::Subscribe(uri) | Standing::Unsubscribe(uri) => drop(uris.insert(uri.to_string())),
            }
        }
        (level, uris)
    }

    pub(super) fn notice_of_client(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Notified<Bytes> {
        match self.notified_by_client(peer, envelope).written(envelope) {
            Notified::Forward(frame) => Notified::Forward(frame.freeze()),
            Notified::Drop(reason) => Notified::Drop(reason),
            Notified::Ignore => Notified::Ignore,
        }
    }
}
