//! The reading end of a stream: reads the messages of a log in order, independently of other cursors.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::item::Entry;
use super::log::CursorError;
use super::shared_log::SharedLog;

/// A position in the log of a stream. Messages from the position on stay in the log until the cursor has read them or is
/// dropped, so a cursor that is not read holds up the writer.
#[derive(Debug)]
pub struct Cursor {
    log: Arc<SharedLog>,
    /// The id of the cursor within the log.
    id: u64,
    /// The sequence number of the next message.
    position: u64,
}

impl Cursor {
    /// The cursor that a new log has.
    pub(super) fn first(log: Arc<SharedLog>) -> Self {
        Self { log, id: 0, position: 1 }
    }

    /// A cursor that starts at message number `from`.
    ///
    /// # Errors
    /// The log has dropped that message, or the number is higher than that of the next message.
    pub(super) fn open(log: Arc<SharedLog>, from: u64) -> Result<Self, CursorError> {
        let id = log.open_cursor(from)?;
        Ok(Self { log, id, position: from })
    }

    /// The next message, or `None` at the end of the stream.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Entry>> {
        let polled = self.log.poll_read(self.id, self.position, context);
        if let Poll::Ready(Some(_)) = polled {
            self.position += 1;
        }
        polled
    }

    /// Waits for the next message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Entry> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.log.close_cursor(self.id, self.position);
    }
}
