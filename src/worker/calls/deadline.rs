//! The deadline timer of the calls on one child.

use tokio::time::Instant;

/// The earliest known deadline. The timer may fire early: finished calls do not move it back. Only an earlier deadline
/// moves it, so calls with equal time-outs wake the supervisor once.
#[derive(Debug, Default)]
pub(in crate::worker) struct DeadlineTimer {
    at: Option<Instant>,
    is_moved: bool,
}

impl DeadlineTimer {
    /// Moves the timer to `at`, if that is earlier.
    pub(in crate::worker) fn no_later_than(&mut self, at: Instant) {
        if self.at.is_none_or(|set| at < set) {
            *self = Self { at: Some(at), is_moved: true };
        }
    }

    /// Sets the timer to the next deadline, after everything overdue has been removed.
    pub(in crate::worker) fn set(&mut self, at: Option<Instant>) {
        *self = Self { at, is_moved: false };
    }

    /// The time at which the timer fires.
    pub(in crate::worker) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether the timer was moved to an earlier time since the last call: then the sleeping supervisor must be woken.
    pub(in crate::worker) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.is_moved)
    }
}
