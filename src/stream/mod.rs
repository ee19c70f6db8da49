//! The way of messages back to a client: a bounded log that cursors read, and a response body that writes the messages
//! as Server-Sent Events.

mod body;
mod budget;
mod event;
mod exchange;
mod expiry;
mod item;
mod log;
mod outbox;

pub use body::EventStream;
pub use budget::{Budget, Usage};
#[cfg(feature = "fuzzing")]
pub use event::encode_message;
pub use event::{KEEP_ALIVE, endpoint_event, retry_field};
pub use exchange::Exchange;
pub use expiry::Expiry;
pub use item::{Entry, Item, Requester, ServerRequest};
pub use log::{CursorError, PushError};
pub use outbox::{Cursor, Outbox};
