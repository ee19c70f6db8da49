//! The writing end of a stream: appends messages to a bounded log that cursors read. A writer that finds the log full
//! decides whether to wait or to cut the stream.

use std::future::poll_fn;
use std::sync::Arc;

use super::budget::Budget;
use super::cursor::Cursor;
use super::item::Item;
use super::log::{CursorError, PushError};
use super::shared_log::SharedLog;

/// The writing end of a stream; cheap to clone. The sender of a server request is told if no cursor reads the request.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<SharedLog>);

impl Outbox {
    /// An empty stream and a cursor at its start. The log drops each message as soon as all cursors have read it, and ends
    /// with the last cursor.
    pub fn new(budget: Budget) -> (Self, Cursor) {
        Self::with_retention(budget, Budget::ZERO)
    }

    /// Like [`Self::new`], for a stream that can be read again. The log keeps the newest messages that all cursors have
    /// read, within `retention`, and does not end with the last cursor. A later cursor can start at any message that is
    /// kept.
    pub fn with_retention(budget: Budget, retention: Budget) -> (Self, Cursor) {
        let log = Arc::new(SharedLog::new(budget, retention));
        let cursor = Cursor::first(Arc::clone(&log));
        (Self(log), cursor)
    }

    /// Another cursor, which starts at the message with sequence number `from`.
    ///
    /// # Errors
    /// The log has dropped that message, or the number is higher than that of the next message.
    pub fn cursor_from(&self, from: u64) -> Result<Cursor, CursorError> {
        Cursor::open(Arc::clone(&self.0), from)
    }

    /// Appends a message.
    ///
    /// # Errors
    /// The unread messages use up the budget, or the stream has ended.
    pub fn push(&self, item: Item) -> Result<(), PushError> {
        self.0.append(item, false)
    }

    /// Appends a message of the gateway's own, which cannot wait for room: such messages may use the budget a second time.
    ///
    /// # Errors
    /// The unread messages use up the budget twice, or the stream has ended.
    pub fn push_own(&self, item: Item) -> Result<(), PushError> {
        self.0.append(item, true)
    }

    /// Waits until the log has room for a message of `len` bytes, or the stream has ended.
    pub async fn room_for(&self, len: usize) {
        poll_fn(|context| self.0.poll_room(len, context)).await;
    }

    /// Ends the stream. Cursors still read the messages that are in the log.
    pub fn finish(&self) {
        self.0.finish();
    }

    /// Ends the stream at once, and removes the messages that are in the log.
    pub fn cut(&self) {
        self.0.cut();
    }

    /// Whether the stream takes messages.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Whether both write to the same stream.
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests;
