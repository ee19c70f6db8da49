//! The client's side of a link, as a trait: the receiver of everything that a child sends besides answers.

use bytes::Bytes;

use crate::stream::Item;
use crate::worker::{InFlight, Route, Unsolicited};

/// The receiver of a link's requests and notifications of the server. A link calls this while holding its own lock, so an
/// implementation must neither block nor call the link.
pub trait Client: Send + Sync {
    /// Decides where a request or notification of the server goes. `in_flight` names the calls that may have caused it.
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route;

    /// Drops the server's request `number`, if it has been kept for a client that is not listening. Returns whether it was
    /// dropped; a client that has already received the request has to be told of its withdrawal.
    fn forget(&self, number: u64) -> bool;

    /// Delivers a notification of the gateway's own about the server as a whole, once: not if an equal one is kept already.
    fn announce(&self, message: Bytes);

    /// Whether the client has an open stream for messages that answer no call.
    fn is_listening(&self) -> bool;
}
