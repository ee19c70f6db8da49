//! What flows back to a client: a bounded queue of messages, and the body that turns it into Server-Sent Events.

mod body;
mod event;
mod exchange;
mod expiry;
mod outbox;

pub use body::EventStream;
pub use event::{KEEP_ALIVE, encode_message, endpoint_event, retry_field};
pub use exchange::Exchange;
pub use expiry::Expiry;
pub use outbox::{Budget, Cursor, Item, Outbox, PushError, Requester, ServerRequest};
