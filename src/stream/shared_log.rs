//! A log behind a lock, with the wakers of the tasks that wait for a message or for room. No method blocks.

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::budget::Budget;
use super::item::{Entry, Item};
use super::log::{CursorError, Log, PushError, Removed};

/// A log that writers and cursors share.
#[derive(Debug)]
pub(super) struct SharedLog(Mutex<State>);

#[derive(Debug)]
struct State {
    log: Log,
    readers: Readers,
    /// The wakers of the tasks that wait for room.
    writers: Vec<Waker>,
    /// The highest id of a cursor. The first cursor has id 0.
    last_cursor: u64,
}

/// The wakers of the cursors that wait for a message, at most one for each cursor. The first one is stored inline: a log with
/// one cursor allocates no memory for wakers.
#[derive(Debug, Default)]
struct Readers {
    first: Option<(u64, Waker)>,
    others: Vec<(u64, Waker)>,
}

impl Readers {
    /// Stores the waker of a cursor in the place of the cursor's earlier one.
    fn set(&mut self, cursor: u64, waker: &Waker) {
        let earlier = self.first.iter_mut().chain(&mut self.others).find(|(id, _)| *id == cursor);
        if let Some((_, earlier)) = earlier {
            earlier.clone_from(waker);
        } else if self.first.is_none() {
            self.first = Some((cursor, waker.clone()));
        } else {
            self.others.push((cursor, waker.clone()));
        }
    }

    /// Forgets the waker of a cursor.
    fn remove(&mut self, cursor: u64) {
        self.first.take_if(|(id, _)| *id == cursor);
        self.others.retain(|(id, _)| *id != cursor);
    }

    /// Wakes all cursors.
    fn wake(self) {
        self.first.into_iter().chain(self.others).for_each(|(_, waker)| waker.wake());
    }
}

impl SharedLog {
    /// An empty log with one cursor, which has id 0 and starts at message number 1. Unread messages stay within `budget`,
    /// messages that all cursors have read within `retention`.
    pub(super) fn new(budget: Budget, retention: Budget) -> Self {
        let log = Log::new(budget, retention);
        Self(Mutex::new(State { log, readers: Readers::default(), writers: Vec::new(), last_cursor: 0 }))
    }

    /// Appends a message and wakes the cursors that wait. A message of the gateway's own (`is_own`) may use the budget a
    /// second time.
    pub(super) fn append(&self, item: Item, is_own: bool) -> Result<(), PushError> {
        let (removed, readers) = {
            let mut state = self.0.lock();
            (state.log.append(item, is_own)?, std::mem::take(&mut state.readers))
        };
        removed.report();
        readers.wake();
        Ok(())
    }

    /// Ready when the log has room for a message of `len` bytes, or takes no more messages.
    pub(super) fn poll_room(&self, len: usize, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if !state.log.is_open() || state.log.has_room(len) {
            return Poll::Ready(());
        }
        if !state.writers.iter().any(|writer| writer.will_wake(context.waker())) {
            state.writers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Gives message number `position` to `cursor`, which reads it for the first time, and wakes the writers that wait for
    /// room. `None` at the end of the stream.
    pub(super) fn poll_read(&self, cursor: u64, position: u64, context: &Context<'_>) -> Poll<Option<Entry>> {
        let mut state = self.0.lock();
        let Some((entry, removed)) = state.log.read(position) else {
            if !state.log.is_open() {
                return Poll::Ready(None);
            }
            state.readers.set(cursor, context.waker());
            return Poll::Pending;
        };
        let writers = std::mem::take(&mut state.writers);
        drop(state);
        removed.report();
        writers.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(entry))
    }

    /// Opens a cursor that starts at message number `from`. Returns the id of the cursor.
    pub(super) fn open_cursor(&self, from: u64) -> Result<u64, CursorError> {
        let mut state = self.0.lock();
        state.log.add_cursor(from)?;
        state.last_cursor += 1;
        Ok(state.last_cursor)
    }

    /// Closes a cursor whose next message would have been number `position`.
    pub(super) fn close_cursor(&self, cursor: u64, position: u64) {
        self.change(|state| {
            state.readers.remove(cursor);
            state.log.remove_cursor(position)
        });
    }

    /// Ends the stream. Cursors still read the messages that are in the log.
    pub(super) fn finish(&self) {
        self.change(|state| {
            state.log.finish();
            Removed::default()
        });
    }

    /// Ends the stream at once, and removes the messages that are in the log.
    pub(super) fn cut(&self) {
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

    /// Whether the log takes messages.
    pub(super) fn is_open(&self) -> bool {
        self.0.lock().log.is_open()
    }
}

impl Drop for SharedLog {
    /// Reports the server requests that a log with retention keeps without a cursor.
    fn drop(&mut self) {
        self.0.get_mut().log.cut().report();
    }
}
