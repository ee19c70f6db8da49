//! The client's side of a link, as a trait: the receiver of everything that a child sends besides answers.

use bytes::Bytes;

use crate::stream::Item;
use crate::worker::{InFlight, Route, Unsolicited};

/// The receiver of the server's requests and notifications on a link. A link may hold its own lock in a call, so an
/// implementation must neither block nor call the link.
pub trait Client: Send + Sync {
    /// Decides where a request or notification of the server goes. `in_flight` describes the link's calls on the child
    /// that has sent the message.
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route;

    /// Drops the server's request `number`, if it has been kept for a client that is not listening. Returns whether it
    /// was dropped; a client that has already received the request has to be told of its withdrawal.
    fn forget(&self, number: u64) -> bool;

    /// Delivers a notification of the gateway's own about the server as a whole, unless an equal one is kept already. A
    /// client that does not read may miss the notification.
    fn announce(&self, message: Bytes);

    /// Whether the client has an open stream for messages that answer no call.
    fn is_listening(&self) -> bool;
}
