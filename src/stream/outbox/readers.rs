//! The wakers of the cursors that wait for the next message of a log.

use std::task::Waker;

/// The wakers, at most one for each cursor. The first one is stored inline: a log with one cursor allocates no memory
/// for wakers.
#[derive(Debug, Default)]
pub(super) struct Readers {
    first: Option<(u64, Waker)>,
    others: Vec<(u64, Waker)>,
}

impl Readers {
    /// Stores the waker of a cursor in the place of the cursor's earlier one.
    pub(super) fn set(&mut self, cursor: u64, waker: &Waker) {
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
    pub(super) fn remove(&mut self, cursor: u64) {
        self.first.take_if(|(id, _)| *id == cursor);
        self.others.retain(|(id, _)| *id != cursor);
    }

    /// Wakes all cursors.
    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.others).for_each(|(_, waker)| waker.wake());
    }
}
