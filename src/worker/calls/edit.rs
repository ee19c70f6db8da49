//! The replacements in a message of the child: ids, progress tokens and lists of tasks. The tables choose the
//! replacements under their lock; the message, which can have many megabytes, is copied when the lock is free.

use bytes::{Bytes, BytesMut};

use super::LeaseId;
use crate::jsonrpc::{Code, Envelope, RawId, Splice, error_response, notification_frame, response_frame, splice};
use crate::mcp::each_task;
use crate::memory::{Account, Exhausted};

/// The replacements in a message of the child, for its client.
#[derive(Debug)]
pub(in crate::worker) enum Edit {
    /// No replacement.
    Nothing,
    /// The id of an answer, by the client's.
    Id(RawId),
    /// The progress token, by the client's.
    ProgressToken(RawId),
    /// The id of the cancelled request, by the id towards the client.
    RequestId(u64),
    /// The id of a server request, and its progress token if there is one, both by the id towards the client.
    Request(u64),
    /// The id of an answer to `tasks/list`, by the client's, and the list, by those of its tasks that are this
    /// session's.
    OwnTasks(LeaseId, RawId),
}

impl Edit {
    /// The message for the client, charged to `account`. `owns` says whether a task is a session's.
    ///
    /// # Errors
    /// The account has no room for the message.
    pub(in crate::worker) fn apply(
        self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        account: &Account,
        owns: impl Fn(LeaseId, &str) -> bool,
    ) -> Result<Bytes, Exhausted> {
        let (old, new) = match self {
            Self::Nothing => return account.hold(message.clone(), message.len()),
            Self::OwnTasks(peer, id) => {
                return account.freeze(only_own_tasks(message, envelope, &id, |task| owns(peer, task)));
            }
            Self::Id(id) => (envelope.id, id),
            Self::ProgressToken(token) => (envelope.members.progress_token, token),
            Self::RequestId(number) => (envelope.members.request_id, number.into()),
            Self::Request(number) => {
                let (new, token) = (RawId::from(number), envelope.members.meta.progress_token);
                let old = envelope.id.into_iter().chain(token);
                let mut replacements: Vec<_> = old.map(|old| Splice { old, new: new.as_str() }).collect();
                return account.freeze(splice(message, &mut replacements));
            }
        };
        account.freeze(splice(message, old.map(|old| Splice { old, new: new.as_str() }).as_mut_slice()))
    }
}

/// The answer to `tasks/list`, without the tasks of other sessions. If the list cannot be read, an error takes its
/// place.
fn only_own_tasks(message: &[u8], envelope: &Envelope<'_>, id: &RawId, is_own: impl Fn(&str) -> bool) -> BytesMut {
    let Some(old) = envelope.id else { return BytesMut::from(message) };
    let (mut own, list) = (String::from("["), envelope.members.tasks);
    let read = list.map(|list| {
        each_task(list, |id, task| {
            if id.is_some_and(|id| is_own(&id)) {
                own.push_str(if own.len() > 1 { "," } else { "" });
                own.push_str(task);
            }
        })
    });
    own.push(']');
    if envelope.members.fault.is_some() || read.is_some_and(|read| read.is_err()) {
        let text = "the list of tasks cannot be read, and may hold those of others";
        return BytesMut::from(&*error_response(Some(id), Code::Internal, text));
    }
    let mut replacements = vec![Splice { old, new: id.as_str() }];
    replacements.extend(list.map(|list| Splice { old: list, new: &own }));
    splice(message, &mut replacements)
}

/// The frame of a client's cancellation, with the call's number in the place of the client's id.
pub(in crate::worker) fn cancellation_frame(number: u64, envelope: &Envelope<'_>) -> BytesMut {
    let new = RawId::from(number);
    let mut replacement = envelope.members.request_id.map(|old| Splice { old, new: new.as_str() });
    notification_frame(envelope, replacement.as_mut_slice())
}

/// The frame of a client's answer to a server request, under the id that the child gave the request.
pub(in crate::worker) fn answer_frame(id: &RawId, envelope: &Envelope<'_>) -> BytesMut {
    response_frame(id.as_str(), envelope)
}
