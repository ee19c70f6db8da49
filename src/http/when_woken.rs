//! Polls what hardly ever happens only when it has happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls a future or a stream in a task that is polled often for other reasons: only at first, after a wake-up of its
/// own, and after it was ready.
#[derive(Default)]
pub struct WhenWoken {
    /// The waker for the future, twice: as a waker, and to look whether it was used. `None` before the first poll.
    own: Option<(Waker, Arc<Rouse>)>,
}

/// Notes a wake-up and wakes the task.
struct Rouse {
    task: Waker,
    is_woken: AtomicBool,
}

impl WhenWoken {
    /// Polls by `poll` if there is a reason to. Otherwise the result is pending.
    pub fn poll<T>(&mut self, context: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.own.take_if(|(_, rouse)| !rouse.task.will_wake(context.waker()));
        let (waker, rouse) = self.own.get_or_insert_with(|| {
            let rouse = Arc::new(Rouse { task: context.waker().clone(), is_woken: AtomicBool::new(true) });
            (Arc::clone(&rouse).into(), rouse)
        });
        // Read first, because a write is slower, and swapped then, so that the poll sees what caused the wake-up.
        if !rouse.is_woken.load(Ordering::Relaxed) || !rouse.is_woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let polled = poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            rouse.is_woken.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl Wake for Rouse {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn it_is_polled_first_when_woken_and_after_it_was_ready() {
        let (mut when_woken, mut stored) = (WhenWoken::default(), None);
        let task = Arc::new(Task).into();
        let mut context = Context::from_waker(&task);
        let mut polls = |result: Poll<()>, wake: bool| {
            let mut was_polled = false;
            let _ = when_woken.poll(&mut context, |own| {
                was_polled = true;
                stored = Some(own.waker().clone());
                result
            });
            stored.iter().filter(|_| wake).for_each(Waker::wake_by_ref);
            was_polled
        };
        assert!(polls(Poll::Pending, false));
        assert!(!polls(Poll::Pending, true));
        assert!(polls(Poll::Pending, false));
        assert!(!polls(Poll::Pending, true));
        assert!(polls(Poll::Ready(()), false));
        assert!(polls(Poll::Pending, false));
        assert!(!polls(Poll::Pending, false));
    }
}
