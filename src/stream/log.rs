//! A bounded log of messages with sequence numbers, which any number of cursors read independently of each other.
//!
//! The log is plain data: no lock, no waker, no clock. A message stays in the log until every cursor has read it, and
//! then for as long as the retention has room. Invariant: messages that a cursor has yet to read stay within the
//! budget, all others within the retention, and the latter come first.

mod slots;

use std::collections::VecDeque;

use slots::Slots;

use super::budget::{Budget, Usage};
use super::item::{Entry, Item, ServerRequest};

/// Why a log did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// The unread messages use up the budget.
    Full,
    /// The stream has ended, or its last cursor has been dropped.
    Closed,
}

/// Why a cursor cannot start at a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// The log has dropped the message with that number.
    #[error("the messages before number {oldest} are gone")]
    Gone {
        /// The lowest number that a cursor can start at.
        oldest: u64,
    },
    /// The number is higher than that of the next message.
    #[error("the next message has number {next}")]
    NotYet {
        /// The highest number that a cursor can start at.
        next: u64,
    },
}

/// A message in a log.
#[derive(Debug)]
struct Slot {
    item: Item,
    /// The number of cursors that have yet to read the message.
    unread_by: usize,
    /// Whether any cursor has read the message.
    is_delivered: bool,
}

/// Messages that have left a log. Whoever removes them reports them after releasing the lock of the log.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Removed(VecDeque<Slot>);

impl Removed {
    /// Tells the senders of server requests that no cursor has read which of their requests no cursor will read.
    pub(super) fn report(self) {
        let undelivered = self.0.into_iter().filter(|slot| !slot.is_delivered);
        for ServerRequest { number, requester } in undelivered.filter_map(|slot| slot.item.request) {
            requester.upgrade().into_iter().for_each(|requester| requester.undelivered(number));
        }
    }
}

/// The messages, their bounds and the number of cursors.
#[derive(Debug, Default)]
pub(super) struct Log {
    slots: Slots<Slot>,
    /// The sequence number of the first slot, or of the next message where there is no slot.
    first: u64,
    /// The sequence number of the next message.
    next: u64,
    /// The bounds of the messages that a cursor has yet to read.
    budget: Budget,
    unread: Usage,
    /// The bounds of the messages that every cursor has read.
    retention: Budget,
    retained: Usage,
    /// The number of cursors.
    cursors: usize,
    /// Whether the log takes no messages any more.
    pub(super) is_closed: bool,
}

impl Log {
    /// An empty log with one cursor, which starts at message number 1.
    pub(super) fn new(budget: Budget, retention: Budget) -> Self {
        Self { first: 1, next: 1, budget, retention, cursors: 1, ..Self::default() }
    }

    /// Whether the budget has room for a message of `len` bytes.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.budget.admits(self.unread, len)
    }

    /// The number of bytes that a cursor has yet to read.
    pub(super) fn unread(&self) -> usize {
        self.unread.bytes()
    }

    /// Appends a message. A message of the gateway's own (`is_own`) may use the budget a second time. An empty log
    /// takes a message of any length.
    ///
    /// # Errors
    /// The budget has no room for the message, or the log is closed. The message comes back.
    pub(super) fn append(&mut self, item: Item, is_own: bool) -> Result<Removed, (PushError, Item)> {
        let len = item.message.len();
        if self.is_closed {
            return Err((PushError::Closed, item));
        }
        let budget = if is_own { self.budget.doubled() } else { self.budget };
        if !budget.admits(self.unread, len) {
            return Err((PushError::Full, item));
        }
        if self.cursors > 0 { &mut self.unread } else { &mut self.retained }.add(len);
        self.slots.push_back(Slot { item, unread_by: self.cursors, is_delivered: false });
        self.next += 1;
        Ok(self.evict())
    }

    /// Adds a cursor that starts at the message with number `from`.
    pub(super) fn add_cursor(&mut self, from: u64) -> Result<(), CursorError> {
        if from < self.first {
            return Err(CursorError::Gone { oldest: self.first });
        }
        if from > self.next {
            return Err(CursorError::NotYet { next: self.next });
        }
        let start = self.index(from);
        for slot in self.slots.iter_mut_from(start) {
            if slot.unread_by == 0 {
                self.retained.remove(slot.item.message.len());
                self.unread.add(slot.item.message.len());
            }
            slot.unread_by += 1;
        }
        self.cursors += 1;
        Ok(())
    }

    /// Removes a cursor whose next message would have been number `position`. Without a cursor, a log without retention
    /// closes.
    pub(super) fn remove_cursor(&mut self, position: u64) -> Removed {
        self.cursors -= 1;
        if self.cursors == 0 && self.retention == Budget::ZERO {
            return self.cut();
        }
        let start = self.index(position);
        for slot in self.slots.iter_mut_from(start) {
            slot.unread_by -= 1;
            if slot.unread_by == 0 {
                self.unread.remove(slot.item.message.len());
                self.retained.add(slot.item.message.len());
            }
        }
        self.evict()
    }

    /// Gives message number `position` to a cursor that reads it for the first time. `None` where the log has no such
    /// message.
    pub(super) fn read(&mut self, position: u64) -> Option<(Entry, Removed)> {
        let index = self.index(position);
        let slot = self.slots.get_mut(index)?;
        slot.is_delivered = true;
        slot.unread_by -= 1;
        let request = slot.item.request.as_ref().map(|request| request.number);
        let is_read_by_all = slot.unread_by == 0;
        // Without retention this is the first slot. Its message moves to the cursor, and is not copied.
        let (message, answer) = if is_read_by_all && self.retention == Budget::ZERO {
            let Item { message, answer, .. } = self.slots.pop_front()?.item;
            self.first += 1;
            (message, answer)
        } else {
            (slot.item.message.clone(), slot.item.answer)
        };
        if is_read_by_all {
            self.unread.remove(message.len());
            if self.retention != Budget::ZERO {
                self.retained.add(message.len());
            }
        }
        Some((Entry { sequence: position, message, answer, request }, self.evict()))
    }

    /// Stops taking messages. Cursors still read the messages that are in the log: none is removed.
    pub(super) fn finish(&mut self) -> Removed {
        self.is_closed = true;
        Removed::default()
    }

    /// Stops taking messages, and removes the messages that are in the log.
    pub(super) fn cut(&mut self) -> Removed {
        self.is_closed = true;
        self.first = self.next;
        (self.unread, self.retained) = (Usage::default(), Usage::default());
        Removed(std::mem::take(&mut self.slots).into_iter().collect())
    }

    /// The index of the slot with number `sequence`, or the number of slots where the log has no such slot.
    fn index(&self, sequence: u64) -> usize {
        let index = usize::try_from(sequence.saturating_sub(self.first)).unwrap_or(usize::MAX);
        index.min(self.slots.len())
    }

    /// Removes the oldest of the messages that every cursor has read, until the retention covers the rest.
    fn evict(&mut self) -> Removed {
        let mut removed = Removed::default();
        while !self.retention.covers(self.retained)
            && let Some(slot) = self.slots.pop_front()
        {
            self.retained.remove(slot.item.message.len());
            self.first += 1;
            removed.0.push_back(slot);
        }
        removed
    }
}

#[cfg(test)]
mod tests;
