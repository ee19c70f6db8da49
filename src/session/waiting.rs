//! What waits for a child that is starting: counted, so that a client cannot fill the memory meanwhile.

use crate::config::ChildLimits;

/// How much waits. The limits are those of the child: calls in flight, and bytes for its stdin.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: usize,
    bytes: usize,
}

impl Waiting {
    /// Takes one more message of `len` bytes, if there is room (one may be larger when nothing else waits).
    pub(super) fn enter(&mut self, len: usize, limits: &ChildLimits) -> bool {
        let has_room = self.messages < limits.max_in_flight && self.bytes + len <= limits.stdin_queue;
        if self.messages > 0 && !has_room {
            return false;
        }
        self.messages += 1;
        self.bytes += len;
        true
    }

    /// A message waits no longer.
    pub(super) fn leave(&mut self, len: usize) {
        self.messages -= 1;
        self.bytes -= len;
    }
}
