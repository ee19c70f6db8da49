//! Work on a message of many bytes, such as reading 16 MiB of small members: done so that the threads that serve go on
//! with other connections meanwhile.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Up to this size, in bytes, a message is worked on at once: that takes a few milliseconds at most.
pub const LIGHT: usize = 128 * 1024;

/// The turns of what clients send.
pub static BODIES: Turns = Turns::new();
/// The turns of what children write. They do not wait behind the bodies of clients.
pub static LINES: Turns = Turns::new();

/// Turns to work on large messages. Half of the processors may do so at the same time, and one may always. An owner,
/// such as a tenant, has one turn at a time, and owners have theirs in the order of arrival: who sends much waits for
/// those who send little.
#[derive(Debug)]
pub struct Turns {
    all: LazyLock<Semaphore>,
    /// Those who have a turn or wait for one. Others are forgotten.
    owners: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// Leave to work on one message. A small message needs none.
#[derive(Debug)]
pub struct Turn(Option<(OwnedSemaphorePermit, SemaphorePermit<'static>)>);

impl Turns {
    const fn new() -> Self {
        Self { all: LazyLock::new(half_of_the_processors), owners: Mutex::new(BTreeMap::new()) }
    }

    /// Waits until a message of `bytes` bytes may be worked on.
    pub async fn turn(&'static self, owner: impl Display, bytes: usize) -> Turn {
        if bytes <= LIGHT {
            return Turn(None);
        }
        let own = {
            let mut owners = self.owners.lock();
            owners.retain(|_, turns| Arc::strong_count(turns) > 1);
            Arc::clone(owners.entry(owner.to_string()).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        // The semaphores are never closed.
        let Ok(own) = own.acquire_owned().await else { return Turn(None) };
        Turn(self.all.acquire().await.ok().map(|any| (own, any)))
    }

    /// Does `work` on a message of `bytes` bytes, as soon as it may be done.
    pub async fn run<T>(&'static self, owner: impl Display, bytes: usize, work: impl FnOnce() -> T) -> T {
        self.turn(owner, bytes).await.run(work)
    }

    /// Whether an owner has a turn, or waits for one.
    pub fn has(&self, owner: impl Display) -> bool {
        self.owners.lock().get(&owner.to_string()).is_some_and(|turns| Arc::strong_count(turns) > 1)
    }
}

fn half_of_the_processors() -> Semaphore {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new((processors / 2).max(1))
}

impl Turn {
    /// Does `work` on the message. Where the message is large, the other tasks of this thread move to another thread
    /// meanwhile.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        // A runtime of one thread, as many tests have, has no other thread to move tasks to.
        let can_move = || Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        match self.0.is_some() && can_move() {
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
        let large = tokio::spawn(BODIES.run("a", LIGHT + 1, move || waits.recv_timeout(Duration::from_secs(10))));
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
            .map(|owner| {
                let (begun, waits) = (begun.clone(), std::sync::Arc::clone(&waits));
                tokio::spawn(BODIES.run(owner, LIGHT + 1, move || {
                    begun.send(()).unwrap();
                    waits.lock().recv_timeout(Duration::from_secs(10))
                }))
            })
            .collect();
        let most = (processors / 2).max(1);
        for _ in 0..most {
            begins.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert_eq!(BODIES.all.available_permits(), 0);
        assert!(begins.try_recv().is_err(), "no more than {most} have begun");
        tasks.iter().for_each(|_| go_on.send(()).unwrap());
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn an_owner_of_many_large_messages_waits_for_one_of_few() {
        let (begun, begins) = mpsc::sync_channel(8);
        let (go_on, waits) = mpsc::sync_channel::<()>(8);
        let waits = Arc::new(Mutex::new(waits));
        let start = |owner: &'static str| {
            let (begun, waits) = (begun.clone(), Arc::clone(&waits));
            tokio::spawn(BODIES.run(owner, LIGHT + 1, move || {
                begun.send(owner).unwrap();
                waits.lock().recv_timeout(Duration::from_secs(10)).unwrap();
            }))
        };
        let first = start("much");
        assert_eq!(begins.recv_timeout(Duration::from_secs(10)), Ok("much"));
        let second = start("much");
        let queued = || BODIES.owners.lock().get("much").map(Arc::strong_count);
        while queued() < Some(3) {
            tokio::task::yield_now().await;
        }
        let other = start("little");
        while !BODIES.has("little") {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            go_on.send(()).unwrap();
        }
        assert_eq!(begins.recv_timeout(Duration::from_secs(10)), Ok("little"));
        assert_eq!(begins.recv_timeout(Duration::from_secs(10)), Ok("much"));
        for task in [first, second, other] {
            task.await.unwrap();
        }
        assert!(!BODIES.has("much") && !BODIES.has("little"));
    }
}
