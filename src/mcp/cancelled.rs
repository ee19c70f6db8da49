//! `notifications/cancelled`: reads whose answer is not needed any more, and writes the notification.

use std::fmt::Display;

use super::ambiguity::ambiguity;
use super::method::CANCELLED;
use crate::jsonrpc::{Envelope, Kind, is_id, quoted};

/// The meaning of a client's message as a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancels<'a> {
    /// The message is not `notifications/cancelled`.
    No,
    /// The message cancels the request with this raw id.
    Request(&'a str),
    /// The message is `notifications/cancelled` without the id of a request, or with params that servers may read in
    /// two ways. Such a message cancels nothing.
    Nothing,
}

impl<'a> Cancels<'a> {
    /// Reads a client's message.
    pub fn read(envelope: &Envelope<'a>) -> Self {
        if envelope.kind != Kind::Notification || envelope.method.as_deref() != Some(CANCELLED) {
            return Self::No;
        }
        let id = envelope.members.request_id.filter(|id| is_id(id) && ambiguity(envelope).is_none());
        id.map_or(Self::Nothing, Self::Request)
    }

    /// The raw id of the request that the message cancels.
    pub fn request(self) -> Option<&'a str> {
        if let Self::Request(id) = self { Some(id) } else { None }
    }
}

/// The raw id of its own request that a server cancels, read from a `notifications/cancelled`: the method is not
/// checked. `None` if the id is absent, or a member of the params appears twice.
pub fn cancelled_by_server<'a>(envelope: &Envelope<'a>) -> Option<&'a str> {
    envelope.members.request_id.filter(|_| !envelope.members.has_twin())
}

/// The notification that the answer to the request `id` (raw JSON) is not needed any more.
pub fn cancelled_notification(id: impl Display, reason: &str) -> String {
    let reason = quoted(reason);
    format!(r#"{{"jsonrpc":"2.0","method":"{CANCELLED}","params":{{"requestId":{id},"reason":{reason}}}}}"#)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::jsonrpc::parse;

    #[test]
    fn a_cancellation_that_can_be_read_in_two_ways_cancels_nothing() {
        let message =
            |params: &str| format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
        let one = message(r#"{"reason":"x","request\u0049d":3}"#);
        assert_eq!(Cancels::read(&parse(one.as_bytes()).unwrap()), Cancels::Request("3"));
        for params in [
            "[3]",
            r#"{"requestId":3,"requestId":4}"#,
            r#"{"requestId":3,"request_id":4}"#,
            r#"{"requestId":[]}"#,
            "{}",
        ] {
            assert_eq!(Cancels::read(&parse(message(params).as_bytes()).unwrap()), Cancels::Nothing, "{params}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = cancelled_notification(r#""a""#, "no \"answer\" in time");
        assert_eq!(Cancels::read(&parse(text.as_bytes()).unwrap()).request(), Some(r#""a""#));
    }
}
