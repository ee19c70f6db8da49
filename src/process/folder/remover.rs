//! The thread that removes private folders. Neither the end of a child, nor a start, nor a thread that serves requests
//! waits for it. Invariants: folders take turns, so that a large one delays no other; a folder that cannot be removed
//! is counted, logged once, and tried again at growing intervals.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::removal::Outcome;

/// Longest turn of a folder.
const SLICE: Duration = Duration::from_millis(250);
/// Turns in a row after which a folder that still has content is logged and set aside: something may keep filling it.
const SLICES: u32 = 400;
/// The error that is logged then.
const UNFINISHED: &str = "100 s of removal were not enough: it is very large, or something fills it again and again";
/// Most folders that wait, failed ones included. Others are counted as failures and left to the next start of a
/// gateway.
const MAX_WAITING: usize = 4096;
/// Time until a failed removal is repeated; doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest such time.
const LAST_RETRY: Duration = Duration::from_secs(600);

/// Metrics about removals.
#[derive(Debug, Clone, Default)]
pub struct RemovalMetrics {
    /// Folders that wait to be removed, including those whose removal has failed.
    pub waiting: Gauge,
    /// Attempts that left something behind.
    pub failures: Counter,
}

/// A removal that is done in turns.
struct Job {
    /// The folder that is removed, or in which abandoned folders are, for the log.
    path: PathBuf,
    /// Continues the removal until the given time. Dropped with the job, together with all that it holds.
    step: Box<dyn FnMut(Instant) -> Outcome + Send>,
    /// Turns in a row that did not finish the removal.
    slices: u32,
    /// Attempts that failed.
    failures: u32,
    /// The time of the next attempt after a failure.
    due: Instant,
}

/// A handle of the thread. Clones share it. The thread starts with the first folder, and ends when [`Remover::close`]
/// was called and nothing waits.
#[derive(Clone, Default)]
pub(super) struct Remover(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    metrics: RemovalMetrics,
}

#[derive(Default)]
struct State {
    /// Jobs that have not failed, the next one first.
    waiting: VecDeque<Job>,
    /// Jobs whose last attempt failed.
    later: Vec<Job>,
    is_busy: bool,
    has_thread: bool,
    is_closed: bool,
}

impl Remover {
    pub(super) fn new(metrics: RemovalMetrics) -> Self {
        Self(Arc::new(Shared { metrics, ..Shared::default() }))
    }

    /// Queues the removal of the folder `path`, which `step` continues until the given time. Does not block. Drops
    /// `step` and counts a failure if [`MAX_WAITING`] jobs wait.
    pub(super) fn push(&self, path: PathBuf, step: impl FnMut(Instant) -> Outcome + Send + 'static) {
        let mut state = self.0.state.lock();
        if state.waiting.len() + state.later.len() >= MAX_WAITING {
            // Not under the lock: the end of the last folder of a gateway's is that of the folder around it.
            drop(state);
            self.0.metrics.failures.inc();
            return;
        }
        state.waiting.push_back(Job { path, step: Box::new(step), slices: 0, failures: 0, due: Instant::now() });
        self.0.metrics.waiting.inc();
        if !state.has_thread {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("sluice-remover".to_owned());
            // Where there can be no thread now, the next folder tries again, and the last resort is the next start of a
            // gateway.
            state.has_thread = thread.spawn(move || shared.run()).is_ok();
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Ends the thread once no job waits. Folders whose removal has failed are left.
    pub(super) fn close(&self) {
        self.0.state.lock().is_closed = true;
        self.0.changed.notify_all();
    }

    /// Waits up to `within` until no job waits. `false` if one still waits or has failed.
    pub(super) fn finish(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.0.state.lock();
        while state.is_busy || !state.waiting.is_empty() {
            if self.0.changed.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        state.later.is_empty()
    }
}

impl Shared {
    fn run(&self) {
        while let Some(mut job) = self.next() {
            // Without this thread no folder would be removed any more, and the end of the gateway would wait in vain.
            let outcome = catch_unwind(AssertUnwindSafe(|| (job.step)(Instant::now() + SLICE)));
            let outcome = outcome.unwrap_or_else(|_| Outcome::Failed(std::io::Error::other("the removal panicked")));
            self.put_back(job, outcome);
        }
    }

    /// Waits for the next job. `None` when the thread should end.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            while let Some(at) = state.later.iter().position(|job| job.due <= now) {
                let job = state.later.swap_remove(at);
                state.waiting.push_back(job);
            }
            if let Some(job) = state.waiting.pop_front() {
                state.is_busy = true;
                return Some(job);
            }
            if state.is_closed {
                state.has_thread = false;
                let left = std::mem::take(&mut state.later);
                drop(state);
                drop(left);
                return None;
            }
            match state.later.iter().map(|job| job.due).min() {
                Some(due) => drop(self.changed.wait_until(&mut state, due)),
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn put_back(&self, mut job: Job, outcome: Outcome) {
        let failure = match outcome {
            Outcome::Done => {
                // Dropped before anybody hears that nothing waits, and outside of the lock: what it holds may be pushed
                // in its turn.
                drop(job);
                self.metrics.waiting.dec();
                self.state.lock().is_busy = false;
                self.changed.notify_all();
                return;
            }
            Outcome::Unfinished if job.slices < SLICES => {
                job.slices += 1;
                None
            }
            Outcome::Unfinished => Some(std::io::Error::other(UNFINISHED)),
            Outcome::Failed(error) => Some(error),
        };
        let is_over = failure.is_some();
        if let Some(error) = failure {
            self.metrics.failures.inc();
            if job.failures == 0 {
                tracing::warn!(
                    %error,
                    "the private folder {} cannot be removed; the gateway tries again, less and less often: see what is in it",
                    job.path.display()
                );
            }
            job.due = Instant::now() + (FIRST_RETRY * (1 << job.failures.min(10))).min(LAST_RETRY);
            job.failures = job.failures.saturating_add(1);
            job.slices = 0;
        }
        let mut state = self.state.lock();
        state.is_busy = false;
        if is_over {
            state.later.push(job)
        } else {
            state.waiting.push_back(job)
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl fmt::Debug for Remover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remover")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs::File;

    use super::super::removal::remove;
    use super::super::tests::eventually;
    use super::*;

    #[test]
    fn a_removal_that_panics_is_counted_and_tried_again_and_others_go_on() {
        let (place, metrics) = (tempfile::tempdir().unwrap(), RemovalMetrics::default());
        let (remover, path) = (Remover::new(metrics.clone()), place.path().join("folder"));
        std::fs::create_dir(&path).unwrap();
        let parent = Arc::new(File::open(place.path()).unwrap());
        remover.push("panic".into(), |_| unreachable!("on purpose"));
        remover.push(path.clone(), move |deadline| remove(&parent, c"folder", deadline));
        assert!(!remover.finish(Duration::from_secs(30)), "one is left");
        assert_eq!((path.exists(), metrics.waiting.get()), (false, 1));
        eventually("it is tried again", || metrics.failures.get() >= 2);
        remover.close();
        eventually("the thread ends", || !remover.0.state.lock().has_thread);
    }
}
