//! Ends the turn of a connection that has read much at once. Frames of HTTP/2 are handled while they are read, and bodies
//! are copied: without turns, one connection whose peer writes fast enough keeps a thread for as long as tokio lets it
//! read, which is 128 times.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

/// The bytes that a connection reads in one turn. The read that exceeds this number is the last one of the turn.
const TURN: usize = 8 * 1024;

/// The turn of one connection.
#[derive(Debug, Default)]
pub struct ReadingTurn {
    /// The number of bytes read since the connection last waited.
    read: usize,
}

impl ReadingTurn {
    /// Allows the next read, or ends the turn: the task waits until all other tasks that can run have run, and the sockets
    /// have been looked at.
    pub fn poll_read_on(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.read < TURN {
            return Poll::Ready(());
        }
        self.read = 0;
        // The future of a yield is done with when it is polled once: it has deferred the task's wake-up.
        let _ = pin!(tokio::task::yield_now()).poll(context);
        Poll::Pending
    }

    /// Counts a read of `bytes` bytes.
    pub fn count(&mut self, bytes: usize) {
        self.read = self.read.saturating_add(bytes);
    }

    /// Begins a new turn: the connection waits for its peer.
    pub fn end(&mut self) {
        self.read = 0;
    }
}
