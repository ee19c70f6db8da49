//! What becomes of a message of the child.

use std::sync::Arc;

use bytes::Bytes;

use super::{Call, Edit, LeaseId, Unsolicited, Waiting, Withdrawn};
use crate::jsonrpc::Envelope;
use crate::memory::{Account, Exhausted};
use crate::stream::Exchange;
use crate::telemetry::DropReason;

/// What to do with a message of the child. `M` is first the replacements in the message, then the message to deliver.
#[derive(Debug)]
pub(in crate::worker) enum Incoming<M = Bytes> {
    /// Deliver the answer to a call, which is now over.
    Answer(Answer, M),
    /// Deliver to the exchange of a call that goes on.
    Inform(Arc<Exchange>, M),
    /// Let each of these sessions route the message. A server request has one session, and its id towards the client.
    Unsolicited(Unsolicited, M, Option<u64>, Vec<LeaseId>),
    /// Tell the client that the child cancels a server request.
    Withdrawn(Withdrawn, M),
    /// Send this frame back to the child.
    Reply(Bytes),
    /// Drop the message, and count it.
    Drop(DropReason),
    /// Drop the message: nobody needs it.
    Ignore,
}

impl Incoming<Edit> {
    /// Applies the replacements to the message. What goes to an exchange is charged to the account of the exchange,
    /// all else to `account`, that of the child. `owns` says whether a task is a session's.
    pub(in crate::worker) fn written(
        self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        account: &Account,
        owns: impl Fn(LeaseId, &str) -> bool,
    ) -> Incoming<Result<Bytes, Exhausted>> {
        let write = |edit: Edit, account: &Account| edit.apply(message, envelope, account, owns);
        match self {
            Self::Answer(answer, edit) => {
                let message = write(edit, answer.call.exchange.account());
                Incoming::Answer(answer, message)
            }
            Self::Inform(exchange, edit) => {
                let message = write(edit, exchange.account());
                Incoming::Inform(exchange, message)
            }
            Self::Unsolicited(kind, edit, number, peers) => {
                Incoming::Unsolicited(kind, write(edit, account), number, peers)
            }
            Self::Withdrawn(withdrawn, edit) => Incoming::Withdrawn(withdrawn, write(edit, account)),
            Self::Reply(frame) => Incoming::Reply(frame),
            Self::Drop(reason) => Incoming::Drop(reason),
            Self::Ignore => Incoming::Ignore,
        }
    }
}

/// An answer of the child.
#[derive(Debug)]
pub(in crate::worker) struct Answer {
    /// The call, which is no longer in the table.
    pub(in crate::worker) call: Box<Call>,
    /// Requests of other sessions that get the same answer, under their own ids.
    pub(in crate::worker) waiting: Vec<Waiting>,
    /// A frame that the child has to get because of the answer, before any other.
    pub(in crate::worker) frame: Option<Bytes>,
}
