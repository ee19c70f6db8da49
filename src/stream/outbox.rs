//! The writing end of a stream: appends messages to a bounded log that cursors read. A writer that finds the log full
//! decides whether to wait or to cut the stream. No method blocks.

mod cursor;
mod readers;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

use self::readers::Readers;
use super::budget::Budget;
use super::item::Item;
use super::log::{CursorError, Log, PushError, Removed};

pub use self::cursor::Cursor;

/// The writing end of a stream; cheap to clone. The sender of a server request is told if no cursor reads the request.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Mutex<State>>);

/// The log of a stream and the tasks that wait for the log.
#[derive(Debug)]
struct State {
    log: Log,
    /// The cursors that wait for a message.
    readers: Readers,
    /// The wakers of the tasks that wait for room.
    writers: Vec<Waker>,
    /// The highest id of a cursor. The first cursor has id 0.
    last_cursor: u64,
    /// When the last cursor left, which ended the stream; `None` where the stream has ended otherwise, or not at all.
    left: Option<Instant>,
}

impl Outbox {
    /// An empty stream and a cursor at its start. The log drops each message as soon as all cursors have read it, and
    /// ends with the last cursor.
    pub fn new(budget: Budget) -> (Self, Cursor) {
        Self::with_retention(budget, Budget::ZERO)
    }

    /// Like [`Self::new`], for a stream that can be read again. The log keeps the newest messages that all cursors have
    /// read, within `retention`, and does not end with the last cursor. A later cursor can start at any message that is
    /// kept.
    pub fn with_retention(budget: Budget, retention: Budget) -> (Self, Cursor) {
        let log = Log::new(budget, retention);
        let state = State { log, readers: Readers::default(), writers: Vec::new(), last_cursor: 0, left: None };
        let outbox = Self(Arc::new(Mutex::new(state)));
        (outbox.clone(), Cursor::new(outbox, 0, 1))
    }

    /// Another cursor, which starts at the message with sequence number `from`.
    ///
    /// # Errors
    /// The log has dropped that message, or the number is higher than that of the next message.
    pub fn cursor_from(&self, from: u64) -> Result<Cursor, CursorError> {
        let mut state = self.0.lock();
        state.log.add_cursor(from)?;
        state.last_cursor += 1;
        Ok(Cursor::new(self.clone(), state.last_cursor, from))
    }

    /// Appends a message.
    ///
    /// # Errors
    /// The unread messages use up the budget, or the stream has ended.
    pub fn push(&self, item: Item) -> Result<(), PushError> {
        self.append(item, false).map_err(|(error, _)| error)
    }

    /// Like [`Self::push`], but the message comes back if the stream does not take it.
    ///
    /// # Errors
    /// As [`Self::push`], with the message.
    pub(super) fn offer(&self, item: Item) -> Result<(), (PushError, Item)> {
        self.append(item, false)
    }

    /// Appends a message of the gateway's own, which cannot wait for room: such messages may use the budget a second
    /// time.
    ///
    /// # Errors
    /// The unread messages use up the budget twice, or the stream has ended.
    pub fn push_own(&self, item: Item) -> Result<(), PushError> {
        self.append(item, true).map_err(|(error, _)| error)
    }

    fn append(&self, item: Item, is_own: bool) -> Result<(), (PushError, Item)> {
        let (removed, readers) = {
            let mut state = self.0.lock();
            (state.log.append(item, is_own)?, std::mem::take(&mut state.readers))
        };
        removed.report();
        readers.wake();
        Ok(())
    }

    /// The number of bytes in the stream that a cursor has yet to read.
    pub fn unread(&self) -> usize {
        self.0.lock().log.unread()
    }

    /// Waits until the log has room for a message of `len` bytes, or the stream has ended.
    pub async fn room_for(&self, len: usize) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.log.is_closed || state.log.has_room(len) {
                return Poll::Ready(());
            }
            if !state.writers.iter().any(|writer| writer.will_wake(context.waker())) {
                state.writers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Ends the stream. Cursors still read the messages that are in the log.
    pub fn finish(&self) {
        self.change(|state| state.log.finish());
    }

    /// Ends the stream at once, and removes the messages that are in the log.
    pub fn cut(&self) {
        self.change(|state| state.log.cut());
    }

    /// Changes the log and wakes all tasks that wait.
    fn change(&self, change: impl FnOnce(&mut State) -> Removed) {
        let (removed, readers, writers) = {
            let mut state = self.0.lock();
            (change(&mut state), std::mem::take(&mut state.readers), std::mem::take(&mut state.writers))
        };
        removed.report();
        readers.wake();
        writers.into_iter().for_each(Waker::wake);
    }

    /// Whether the stream takes messages.
    pub fn is_open(&self) -> bool {
        !self.0.lock().log.is_closed
    }

    /// When the last reader left a stream that had not ended; `None` if none has.
    pub fn left(&self) -> Option<Instant> {
        self.0.lock().left
    }
}

impl Drop for State {
    /// Reports the server requests that a log with retention keeps without a cursor.
    fn drop(&mut self) {
        self.log.cut().report();
    }
}

#[cfg(test)]
mod tests;
