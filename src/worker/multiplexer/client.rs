//! What becomes of the client's answers to requests of the server, and of its notifications.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::params::{Params, TaskStatus, created_task};
use super::{Multiplexer, PeerId, refusal};
use crate::jsonrpc::{Envelope, RawId, Splice, one_line, splice};
use crate::telemetry::DropReason;

/// A request of the server that the client has not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) peer: PeerId,
    pub(super) original: RawId,
    /// What the child calls its progress.
    pub(super) progress_token: Option<RawId>,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}

/// What becomes of a notification of the client.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Notified {
    /// The frame for the child.
    Forward(Bytes),
    /// It is about something that is over, or never was this session's.
    Drop(DropReason),
    /// A shared child has nothing to do with it.
    Ignore,
}

impl Multiplexer {
    /// The client answers a request of the server: its number, and the frame for the child; `None` if this session was not
    /// asked. It is open until [`Self::answered_by_client`].
    pub(in crate::worker) fn answer_of_client(
        &self,
        peer: PeerId,
        message: &[u8],
        envelope: &Envelope<'_>,
    ) -> Option<(u64, Bytes)> {
        let id = envelope.id?;
        let number = RawId::new(id)?.as_u64()?;
        let asked = self.asked.get(&number).filter(|asked| asked.peer == peer)?;
        Some((number, one_line(splice(message, &mut [Splice { old: id, new: asked.original.as_str() }]))))
    }

    /// The client's answer to a request of the server is on its way to the child.
    pub(in crate::worker) fn answered_by_client(&mut self, number: u64, envelope: &Envelope<'_>) {
        let Some(Asked { peer, progress_token: Some(token), .. }) = self.asked.remove(&number) else { return };
        if envelope.result.and_then(created_task).is_some_and(|task| task.status == TaskStatus::Working) {
            self.answered_by_task.insert(number, (peer, token));
            if self.answered_by_task.len() > self.max_in_flight {
                self.answered_by_task.pop_first();
            }
        }
    }

    /// What becomes of a notification of the client, other than a cancellation.
    pub(in crate::worker) fn notified_by_client(
        &self,
        peer: PeerId,
        message: &[u8],
        envelope: &Envelope<'_>,
    ) -> Notified {
        match envelope.method.as_deref() {
            Some("notifications/progress") => match self.progress_by_client(peer, message, envelope) {
                Some(frame) => Notified::Forward(frame),
                None => Notified::Drop(DropReason::LateProgress),
            },
            // A shared child has been offered neither roots nor tasks of the client's.
            Some("notifications/roots/list_changed" | "notifications/tasks/status") if self.is_shared => {
                Notified::Ignore
            }
            _ => Notified::Forward(one_line(BytesMut::from(message))),
        }
    }

    /// Progress with a request of the server, which this session was asked.
    fn progress_by_client(&self, peer: PeerId, message: &[u8], envelope: &Envelope<'_>) -> Option<Bytes> {
        let old = Params::read(envelope.params).progress_token.map(RawValue::get)?;
        let number = RawId::new(old)?.as_u64()?;
        let asked = self.asked.get(&number).and_then(|asked| Some((asked.peer, asked.progress_token.as_ref()?)));
        let of_task = || self.answered_by_task.get(&number).map(|(peer, token)| (*peer, token));
        let (_, token) = asked.or_else(of_task).filter(|(owner, _)| *owner == peer)?;
        Some(one_line(splice(message, &mut [Splice { old, new: token.as_str() }])))
    }

    /// A request of the server could not be put to the client: the error for the child.
    pub(in crate::worker) fn undelivered(&mut self, number: u64) -> Option<Bytes> {
        let asked = self.asked.remove(&number)?;
        Some(refusal(&asked.original, "the client has no open stream to be asked on, or does not read it"))
    }
}
