//! Clients' answers to requests of the server, and clients' notifications.

use bytes::Bytes;

use super::asked::Asked;
use super::lease_id::LeaseId;
use super::reported::Reported;
use super::table::{Multiplexer, refusal};
use crate::jsonrpc::{Envelope, RawId, Splice, notification_frame};
use crate::mcp::{ambiguity, is_about_task, label, method};
use crate::telemetry::DropReason;

/// What becomes of a notification of the client. `F` is first the progress token that the child knows, then the frame that the
/// child gets.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Notified<F = Bytes> {
    /// The child hears of it.
    Forward(F),
    /// It is about something that is over, or never was this session's.
    Drop(DropReason),
    /// A shared child has nothing to do with it.
    Ignore,
}

impl Notified<Option<RawId>> {
    /// The same with the frame that the child gets.
    pub(in crate::worker) fn written(self, envelope: &Envelope<'_>) -> Notified<Bytes> {
        match self {
            Self::Forward(token) => {
                let old = envelope.members.progress_token.filter(|_| token.is_some());
                let mut replacement = old.zip(token.as_ref()).map(|(old, token)| Splice { old, new: token.as_str() });
                Notified::Forward(notification_frame(envelope, replacement.as_mut_slice()))
            }
            Self::Drop(reason) => Notified::Drop(reason),
            Self::Ignore => Notified::Ignore,
        }
    }
}

impl Multiplexer {
    /// The client answers a request of the server: its number, and the id that the child gave it; `None` if this session
    /// was not asked. The request is open until [`Self::answered_by_client`].
    pub(in crate::worker) fn answer_of_client(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<(u64, RawId)> {
        let number = envelope.id?.parse().ok()?;
        let asked = self.asked.get(&number).filter(|asked| asked.peer == peer)?;
        Some((number, asked.original.clone()))
    }

    /// Whether a session has still to answer a request.
    pub(in crate::worker) fn is_asked(&self, peer: LeaseId, number: u64) -> bool {
        self.asked.get(&number).is_some_and(|asked| asked.peer == peer)
    }

    /// The client's answer to a request of the server is on its way to the child.
    pub(in crate::worker) fn answered_by_client(&mut self, number: u64, reported: &Reported) {
        let Some(Asked { peer, progress_token: Some(token), .. }) = self.asked.remove(&number) else { return };
        if reported.makes_task() {
            self.answered_by_task.push_back((number, peer, token));
            if self.answered_by_task.len() > self.max_in_flight {
                self.answered_by_task.pop_front();
            }
        }
    }

    /// What becomes of a notification of the client, other than a cancellation.
    pub(in crate::worker) fn notified_by_client(
        &self,
        peer: LeaseId,
        envelope: &Envelope<'_>,
    ) -> Notified<Option<RawId>> {
        if ambiguity(envelope).is_some() {
            return Notified::Drop(DropReason::Ambiguous);
        }
        match envelope.method.as_deref() {
            Some(method::PROGRESS) => match self.progress_by_client(peer, envelope) {
                Some(token) => Notified::Forward(Some(token)),
                None => Notified::Drop(DropReason::LateProgress),
            },
            // A shared child has been offered neither roots nor tasks of the client's.
            Some(method::ROOTS_LIST_CHANGED | method::TASKS_STATUS) if self.is_shared => Notified::Ignore,
            _ if self.is_shared && self.names_a_foreign_task(peer, envelope) => {
                Notified::Drop(DropReason::Unattributable)
            }
            _ => Notified::Forward(None),
        }
    }

    /// Whether a message of a session on a shared child names a task that is not the session's: in the params of a method
    /// about tasks, or as the task that the message belongs to (2025-11-25, "Tasks").
    pub(super) fn names_a_foreign_task(&self, peer: LeaseId, envelope: &Envelope<'_>) -> bool {
        let name = envelope.method.as_deref().unwrap_or_default();
        let must_name_one = is_about_task(name);
        let is_about_tasks = name.starts_with(method::TASKS_PREFIX) || name.starts_with("notifications/tasks/");
        let asked_about = envelope.members.task_id.filter(|_| is_about_tasks);
        let belongs_to = envelope.members.meta.related_task.map(|_| envelope.members.related_task());
        let is_own = |task: Option<&str>| label(task).is_some_and(|task| self.tasks.get(&task) == Some(peer));
        (asked_about.is_some() || must_name_one) && !is_own(asked_about) || belongs_to.is_some_and(|task| !is_own(task))
    }

    /// What the child calls the progress of a request of its own, which this session was asked.
    fn progress_by_client(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<RawId> {
        let number = envelope.members.progress_token?.parse().ok()?;
        let asked = self.asked.get(&number).and_then(|asked| Some((asked.peer, asked.progress_token.as_ref()?)));
        let of_task = || {
            let found = self.answered_by_task.iter().find(|(asked, ..)| *asked == number);
            found.map(|(_, peer, token)| (*peer, token))
        };
        let (_, token) = asked.or_else(of_task).filter(|(owner, _)| *owner == peer)?;
        Some(token.clone())
    }

    /// A request of the server could not be put to the client: the error for the child.
    pub(in crate::worker) fn undelivered(&mut self, number: u64) -> Option<Bytes> {
        let asked = self.asked.remove(&number)?;
        Some(refusal(&asked.original, "the client has no open stream to be asked on, or does not read it"))
    }
}
