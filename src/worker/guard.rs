//! An action for the case that a task panics or is aborted.

/// Runs a closure when dropped, unless disarmed before.
pub struct DropGuard<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> DropGuard<F> {
    /// A guard that runs `undo`.
    pub fn new(undo: F) -> Self {
        Self(Some(undo))
    }

    /// Drops the guard without running the closure.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for DropGuard<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_when_something_panics_and_not_when_all_went_well() {
        let count = std::cell::Cell::new(0);
        let count_up = || count.set(count.get() + 1);
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = DropGuard::new(count_up);
            let nothing: [u8; 0] = [];
            assert!(!nothing.is_empty());
        }));
        assert!(panics.is_err());
        DropGuard::new(count_up).disarm();
        assert_eq!(count.get(), 1);
    }
}
