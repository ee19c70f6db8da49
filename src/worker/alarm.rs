//! Wakes who looks for what has run out of time: at the earliest deadline, and not for each call.

use std::ops::ControlFlow;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// When to look next, at the latest. It may be too early: what it was set for is often over by then. So it is moved by
/// what is due before everything else only; calls that all have the same time move it once, and not again until it has
/// gone off.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    at: Option<Instant>,
    is_moved: bool,
}

impl Alarm {
    /// Something is due then.
    pub(super) fn no_later_than(&mut self, at: Instant) {
        if self.at.is_none_or(|set| at < set) {
            *self = Self { at: Some(at), is_moved: true };
        }
    }

    /// All has been looked at, and this is when the next is due.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        *self = Self { at, is_moved: false };
    }

    /// When it goes off.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether it was moved since this was asked: then who sleeps has to learn of it.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.is_moved)
    }
}

/// Looks at once, then whenever the alarm goes off that a look has set, or is moved, until a look finds something.
pub(super) async fn keep_watch<T>(
    moved: &Notify,
    mut look: impl FnMut(Instant) -> ControlFlow<T, Option<Instant>>,
) -> T {
    loop {
        let next = match look(Instant::now()) {
            ControlFlow::Break(found) => return found,
            ControlFlow::Continue(next) => next,
        };
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = moved.notified() => {}
        }
    }
}
