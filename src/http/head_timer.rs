//! The timer for the heads of the requests of one connection. hyper wants another one for each head, which hardly ever
//! fires. A timer of the runtime is kept instead, and set anew only when it fires.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// Makes the timers of one connection, of which one is waited for at a time.
#[derive(Debug, Clone, Default)]
pub struct HeadTimer(Kept);

/// The timer of the runtime; `None` before the first head is waited for.
type Kept = Arc<Mutex<Option<Pin<Box<Sleep>>>>>;

/// Ready at the deadline.
struct Deadline {
    at: Instant,
    kept: Kept,
}

impl rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Deadline { at: deadline.into(), kept: Arc::clone(&self.0) })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

impl rt::Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut kept = self.kept.lock();
        let timer = kept.get_or_insert_with(|| Box::pin(sleep_until(self.at)));
        if timer.deadline() > self.at {
            timer.as_mut().reset(self.at);
        }
        // The timer may be that of an earlier head.
        while timer.as_mut().poll(context).is_ready() {
            if self.at <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_met_whatever_the_one_before_was() {
        let (timer, begin) = (HeadTimer::default(), Instant::now());
        let after = |millis| (begin + Duration::from_millis(millis)).into();
        for (deadline, elapsed) in [(100, 100), (250, 250), (200, 250), (300, 300)] {
            drop(timer.sleep_until(after(deadline + 1000)));
            timer.sleep_until(after(deadline)).await;
            assert_eq!(begin.elapsed().as_millis(), elapsed);
        }
        // One that is given up is not waited for.
        for deadline in [400, 5000, 450] {
            let mut sleep = timer.sleep_until(after(deadline));
            let is_ready = std::future::poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context).is_ready())).await;
            assert!(!is_ready);
        }
        timer.sleep_until(after(600)).await;
        assert_eq!(begin.elapsed().as_millis(), 600);
    }
}
