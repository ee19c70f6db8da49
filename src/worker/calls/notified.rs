//! What becomes of a notification of a client.

use bytes::BytesMut;

use crate::jsonrpc::{Envelope, RawId, Splice, notification_frame};
use crate::telemetry::DropReason;

/// What becomes of a notification of the client. `F` is first the progress token of the child, then the frame for the
/// child.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Notified<F = BytesMut> {
    /// The child gets the notification.
    Forward(F),
    /// The notification is about something that is over, or that was never this session's.
    Drop(DropReason),
    /// A shared child does not need the notification.
    Ignore,
}

impl Notified<Option<RawId>> {
    /// Writes the frame for the child, with the progress token of the child in the place of the client's.
    pub(in crate::worker) fn written(self, envelope: &Envelope<'_>) -> Notified {
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
