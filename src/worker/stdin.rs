//! The queue of frames for a child's stdin. Bounded in bytes, also for each tenant, principal and session that
//! shares the child. Many frames
//! are written with one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::calls::{Holdings, Refused, left_for};
use crate::memory::Account;
use crate::stream::{Budget, Usage};
use crate::telemetry::as_gauge;

/// The most frames that are written with one system call.
const BATCH: usize = 64;
/// The bytes in the queue up to which frames of the gateway's own are not charged: the child is charged for as much.
const FREE: usize = 16 * 1024;

/// The number of bytes of one session in the queue of a shared child, which count for its tenant and principal as well;
/// cheap to clone. Changed under the lock of the queue only.
#[derive(Debug, Clone, Default)]
pub(super) struct Queued(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    bytes: AtomicUsize,
    holdings: Holdings,
}

impl Queued {
    /// No bytes of a session of these parties.
    pub(super) fn of(holdings: Holdings) -> Self {
        Self(Arc::new(Counted { bytes: AtomicUsize::default(), holdings }))
    }

    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether a frame of `len` bytes leaves the others their room, where `left` bytes are left. One frame of who has
    /// nothing waiting always does.
    fn admits(&self, len: usize, mut left: usize) -> bool {
        let parties = self.0.holdings.counted(|held| held.queued.load(Ordering::Relaxed), self.bytes());
        for own in parties {
            if own > 0 && own + len > left {
                return false;
            }
            left = left_for(left, own);
        }
        true
    }

    fn counts(&self) -> impl Iterator<Item = &AtomicUsize> {
        self.0.holdings.all().map(|held| &held.queued).chain([&self.0.bytes])
    }

    fn add(&self, len: usize) {
        self.counts().for_each(|bytes| bytes.store(bytes.load(Ordering::Relaxed) + len, Ordering::Relaxed));
    }

    fn remove(&self, len: usize) {
        let less = |bytes: &AtomicUsize| bytes.load(Ordering::Relaxed).saturating_sub(len);
        self.counts().for_each(|bytes| bytes.store(less(bytes), Ordering::Relaxed));
    }
}

#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    /// The count of the session's bytes; `None` for a frame of the gateway's own, and where sessions do not share the
    /// child.
    of: Option<Queued>,
}

impl Frame {
    /// Takes the frame off the counts of its session.
    fn leave(self) -> Bytes {
        if let Some(of) = &self.of {
            of.remove(self.bytes.len());
        }
        self.bytes
    }
}

#[derive(Debug)]
struct State {
    frames: VecDeque<Frame>,
    usage: Usage,
    closed: bool,
}

/// The queue of frames for a child's stdin; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct StdinQueue {
    state: Arc<Mutex<State>>,
    ready: Arc<Notify>,
    budget: Budget,
    gauge: Gauge,
}

impl StdinQueue {
    /// A queue for at most `limit` bytes. When the queue is empty, one frame may be larger.
    pub(super) fn new(limit: usize, gauge: Gauge) -> Self {
        let state = State { frames: VecDeque::new(), usage: Usage::default(), closed: false };
        Self { state: Arc::new(Mutex::new(state)), ready: Arc::default(), budget: Budget::of_bytes(limit), gauge }
    }

    /// Queues a frame of the gateway's own, newline included. Where much waits already, the frame is charged to
    /// `account`.
    ///
    /// # Errors
    /// As of [`push_of`](Self::push_of), and `Memory` if the account has no room.
    pub(super) fn push(&self, frame: Bytes, account: &Account) -> Result<(), Refused> {
        let len = frame.len();
        let is_free = self.state.lock().usage.bytes() + len <= FREE;
        self.push_of(None, if is_free { frame } else { account.hold(frame, len)? })
    }

    /// Queues a frame, newline included, which is charged already, and counts it for the session `of`. The bytes of a
    /// tenant, of a principal in it, and of a session of that, may not exceed the room that is left for the others; one
    /// frame of who has nothing waiting always may, if there is room in the queue.
    ///
    /// # Errors
    /// `Ended` if the queue is closed, `Busy` if it is full, `Share` if the session, its principal or its tenant has its
    /// share.
    pub(super) fn push_of(&self, of: Option<&Queued>, frame: Bytes) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Ended);
        }
        if !self.budget.admits(state.usage, frame.len()) {
            return Err(Refused::Busy);
        }
        if let Some(of) = of {
            if !of.admits(frame.len(), self.budget.bytes.saturating_sub(state.usage.bytes())) {
                return Err(Refused::Share);
            }
            of.add(frame.len());
        }
        state.usage.add(frame.len());
        self.gauge.inc_by(as_gauge(frame.len()));
        state.frames.push_back(Frame { bytes: frame, of: of.cloned() });
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Closes the queue for new frames. Queued frames are still written, or dropped if `at_once`.
    pub(super) fn close(&self, at_once: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        if at_once {
            state.frames.drain(..).for_each(|frame| drop(frame.leave()));
            self.gauge.dec_by(as_gauge(std::mem::take(&mut state.usage).bytes()));
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Writes frames until the queue is closed and empty. Closes stdin at the end.
    ///
    /// # Errors
    /// The child has closed its stdin. Then the queue is closed and emptied.
    pub(super) async fn write_to(self, mut stdin: pipe::Sender) -> io::Result<()> {
        let mut batch: VecDeque<Bytes> = VecDeque::with_capacity(BATCH);
        loop {
            if !self.take(&mut batch) {
                return Ok(());
            }
            if batch.is_empty() {
                tokio::select! {
                    () = self.ready.notified() => {}
                    // The child has closed its end: noticed now, and not with the next frame.
                    _ = stdin.ready(Interest::ERROR) => {
                        self.close(true);
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                // Lets other tasks push first: many frames in one system call, and one wake-up of the child for them.
                tokio::task::yield_now().await;
                continue;
            }
            let written = write_all(&mut stdin, &mut batch).await;
            if written.is_err() {
                self.close(true);
                return written;
            }
        }
    }

    /// Moves up to [`BATCH`] frames into `batch`. Returns `false` if the queue is closed and empty.
    fn take(&self, batch: &mut VecDeque<Bytes>) -> bool {
        let mut state = self.state.lock();
        if state.frames.is_empty() {
            return !state.closed;
        }
        let count = state.frames.len().min(BATCH);
        batch.extend(state.frames.drain(..count).map(Frame::leave));
        let before = state.usage.bytes();
        batch.iter().for_each(|frame| state.usage.remove(frame.len()));
        self.gauge.dec_by(as_gauge(before - state.usage.bytes()));
        true
    }
}

async fn write_all(stdin: &mut pipe::Sender, batch: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !batch.is_empty() {
        let slices: Vec<IoSlice<'_>> = batch.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut written = stdin.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(frame) = batch.front_mut() {
            let step = written.min(frame.len());
            frame.advance(step);
            written -= step;
            if !frame.is_empty() {
                break;
            }
            batch.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::worker::Party;
    use crate::worker::calls::{LeaseId, Multiplexer};

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    #[test]
    fn one_session_has_as_much_waiting_as_is_left_for_others() {
        let queue = StdinQueue::new(100, Gauge::default());
        let (greedy, other, third) = (Queued::default(), Queued::default(), Queued::default());
        let take = |of: &Queued| std::iter::from_fn(|| queue.push_of(Some(of), frame(1)).ok()).count();
        assert_eq!(take(&greedy), 50, "half, where it is alone");
        assert_eq!(queue.push_of(Some(&greedy), frame(1)), Err(Refused::Share));
        assert_eq!(take(&other), 25);
        assert_eq!(
            queue.push_of(Some(&third), frame(20)),
            Ok(()),
            "one that has nothing waiting gets all the room that is left"
        );
        assert_eq!(queue.push_of(Some(&third), frame(1)), Err(Refused::Share));
        assert_eq!(
            queue.push_of(Some(&Queued::default()), frame(6)),
            Err(Refused::Busy),
            "there is no room for so much"
        );
        assert_eq!(
            queue.push(frame(5), &Account::unlimited()),
            Ok(()),
            "the gateway's own is bound by the whole alone"
        );
        assert_eq!((greedy.bytes(), other.bytes(), third.bytes()), (50, 25, 20));
        let mut batch = VecDeque::new();
        while !queue.state.lock().frames.is_empty() {
            batch.clear();
            assert!(queue.take(&mut batch));
        }
        assert_eq!((greedy.bytes(), other.bytes(), third.bytes()), (0, 0, 0));
        assert_eq!(
            queue.push_of(Some(&greedy), frame(101)),
            Ok(()),
            "one frame may be larger where nothing else waits"
        );
        queue.close(true);
        assert_eq!((greedy.bytes(), queue.gauge.get()), (0, 0));
    }

    #[test]
    fn sessions_without_end_leave_other_tenants_their_room() {
        let queue = StdinQueue::new(1000, Gauge::default());
        let mut tables = Multiplexer::new(1, true);
        let mut session = |number, tenant: &str| {
            let tenant = Party { name: tenant.to_owned(), has_rivals: true };
            Queued::of(tables.attach_of(LeaseId(number), &[tenant]))
        };
        let take = |of: &Queued| std::iter::from_fn(|| queue.push_of(Some(of), frame(1)).ok()).count();
        // Each is gone before the next comes: what waits is still the tenant's.
        let of_a: usize = (0..100).map(|number| take(&session(number, "a"))).sum();
        assert_eq!(of_a, 500, "half, where it is alone");
        assert!(take(&session(100, "b")) > 100);
        queue.close(true);
        assert_eq!(queue.gauge.get(), 0);
    }

    #[test]
    fn who_has_a_child_of_its_own_may_fill_the_queue() {
        let queue = StdinQueue::new(100, Gauge::default());
        (0..100).for_each(|_| queue.push_of(None, frame(1)).unwrap());
        assert_eq!(queue.push_of(None, frame(1)), Err(Refused::Busy));
    }
}
