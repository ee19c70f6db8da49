//! The reading end of a stream: reads the messages of a log in order, independently of other cursors.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::Outbox;
use crate::stream::Entry;

/// A position in the log of a stream. Messages from the position on stay in the log until the cursor has read them or
/// is dropped, so a cursor that is not read holds up the writer.
#[derive(Debug)]
pub struct Cursor {
    outbox: Outbox,
    /// The id of the cursor within the stream.
    id: u64,
    /// The sequence number of the next message.
    position: u64,
}

impl Cursor {
    /// A cursor that the log already counts. `position` is the sequence number of its first message.
    pub(super) fn new(outbox: Outbox, id: u64, position: u64) -> Self {
        Self { outbox, id, position }
    }

    /// The next message, or `None` at the end of the stream. Wakes the writers that wait for room.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Entry>> {
        let mut state = self.outbox.0.lock();
        let Some((entry, removed)) = state.log.read(self.position) else {
            if state.log.is_closed {
                return Poll::Ready(None);
            }
            state.readers.set(self.id, context.waker());
            return Poll::Pending;
        };
        let writers = std::mem::take(&mut state.writers);
        drop(state);
        self.position += 1;
        removed.report();
        writers.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(entry))
    }

    /// Waits for the next message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Entry> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.outbox.change(|state| {
            state.readers.remove(self.id);
            let had_ended = state.log.is_closed;
            let removed = state.log.remove_cursor(self.position);
            // The clock is read for a reader that leaves early alone: not for each answer.
            if state.log.is_closed && !had_ended {
                state.left = Some(Instant::now());
            }
            removed
        });
    }
}
