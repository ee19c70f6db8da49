//! Work on a message of many bytes, such as reading 16 MiB of small members: done so that the threads that serve go on with other
//! connections meanwhile.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Up to this size, in bytes, a message is worked on at once: that takes a few milliseconds at most.
const LIGHT: usize = 128 * 1024;

/// The turns of what clients send.
pub static BODIES: Turns = Turns::new();
/// The turns of what children write. They do not wait behind the bodies of clients.
pub static LINES: Turns = Turns::new();

/// Turns to work on large messages, in the order of arrival: half of the processors may do so at the same time, and one may always.
#[derive(Debug)]
pub struct Turns(LazyLock<Semaphore>);

/// Leave to work on one message. A small message needs none.
#[derive(Debug)]
pub struct Turn(Option<SemaphorePermit<'static>>);

impl Turns {
    const fn new() -> Self {
        Self(LazyLock::new(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            Semaphore::new((processors / 2).max(1))
        }))
    }

    /// Waits until a message of `bytes` bytes may be worked on.
    pub async fn turn(&'static self, bytes: usize) -> Turn {
        // The semaphore is never closed.
        Turn(if bytes > LIGHT { self.0.acquire().await.ok() } else { None })
    }

    /// Does `work` on a message of `bytes` bytes, as soon as it may be done.
    pub async fn run<T>(&'static self, bytes: usize, work: impl FnOnce() -> T) -> T {
        self.turn(bytes).await.run(work)
    }
}

impl Turn {
    /// Does `work` on the message. Where the message is large, the other tasks of this thread move to another thread meanwhile.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        // A runtime of one thread, as many tests have, has no other thread to move tasks to.
        let can_move = |_: &SemaphorePermit<'_>| Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        match self.0.as_ref().is_some_and(can_move) {
            true => tokio::task::block_in_place(work),
            false => work(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_of_the_same_thread_go_on_while_a_large_message_is_worked_on() {
        let (go_on, waits) = mpsc::sync_channel(64);
        let large = tokio::spawn(BODIES.run(LIGHT + 1, move || waits.recv_timeout(Duration::from_secs(10))));
        // The only thread that serves runs this task too.
        tokio::spawn(async move { go_on.send(()).unwrap() }).await.unwrap();
        assert_eq!(large.await.unwrap(), Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn large_messages_are_worked_on_one_after_the_other_where_processors_are_few() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (begun, begins) = mpsc::sync_channel(64);
        let (go_on, waits) = mpsc::sync_channel::<()>(64);
        let waits = std::sync::Arc::new(parking_lot::Mutex::new(waits));
        let tasks: Vec<_> = (0..=processors)
            .map(|_| {
                let (begun, waits) = (begun.clone(), std::sync::Arc::clone(&waits));
                tokio::spawn(BODIES.run(LIGHT + 1, move || {
                    begun.send(()).unwrap();
                    waits.lock().recv_timeout(Duration::from_secs(10))
                }))
            })
            .collect();
        let most = (processors / 2).max(1);
        for _ in 0..most {
            begins.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert_eq!(BODIES.0.available_permits(), 0);
        assert!(begins.try_recv().is_err(), "no more than {most} have begun");
        tasks.iter().for_each(|_| go_on.send(()).unwrap());
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
    }
}
