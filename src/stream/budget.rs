//! Upper bounds of a queue in messages and bytes, and the amount that a queue holds of both.

/// The largest number of messages and of bytes that a queue may hold.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The largest number of messages.
    pub messages: usize,
    /// The largest sum of the lengths of all messages, in bytes.
    pub bytes: usize,
}

impl Budget {
    /// The budget of a queue that holds nothing.
    pub const ZERO: Self = Self { messages: 0, bytes: 0 };

    /// A budget of `bytes` for any number of messages.
    pub const fn of_bytes(bytes: usize) -> Self {
        Self { messages: usize::MAX, bytes }
    }

    /// A budget of twice as many messages and twice as many bytes.
    pub(super) const fn doubled(self) -> Self {
        Self { messages: self.messages.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }

    /// Whether a queue that holds `usage` may take another message of `len` bytes. An empty queue takes a message of
    /// any length, so that one message larger than the whole budget can pass.
    pub const fn admits(self, usage: Usage, len: usize) -> bool {
        usage.messages == 0 || self.fits(usage, len)
    }

    /// Whether a queue that holds `usage` stays within both bounds with another message of `len` bytes.
    pub const fn fits(self, usage: Usage, len: usize) -> bool {
        usage.messages < self.messages && usage.bytes.saturating_add(len) <= self.bytes
    }

    /// Whether `usage` is within both bounds.
    pub(super) const fn covers(self, usage: Usage) -> bool {
        usage.messages <= self.messages && usage.bytes <= self.bytes
    }
}

/// The number of messages and of bytes that a queue holds. The queue adds each message that enters and removes each
/// message that leaves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    messages: usize,
    bytes: usize,
}

impl Usage {
    /// Counts a message of `len` bytes that enters the queue.
    pub const fn add(&mut self, len: usize) {
        self.messages += 1;
        self.bytes += len;
    }

    /// Counts a message of `len` bytes that leaves the queue.
    pub const fn remove(&mut self, len: usize) {
        self.messages -= 1;
        self.bytes -= len;
    }

    /// The number of bytes in the queue.
    pub const fn bytes(self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_an_empty_queue_admits_any_length() {
        let budget = Budget { messages: 2, bytes: 10 };
        let mut usage = Usage::default();
        assert!(budget.admits(usage, 11) && !budget.fits(usage, 11) && budget.fits(usage, 10));
        usage.add(4);
        assert!(budget.admits(usage, 6) && !budget.admits(usage, 7), "bytes");
        usage.add(0);
        assert!(!budget.admits(usage, 0) && budget.covers(usage), "messages");
        usage.remove(4);
        assert_eq!(usage.bytes(), 0);
        assert!(budget.admits(usage, 10) && !Budget::ZERO.fits(Usage::default(), 0));
        assert!(Budget::of_bytes(1).admits(usage, 1), "messages are not bounded");
    }
}
