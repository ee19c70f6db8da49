//! A bounded queue from a worker to one HTTP response. It holds a number of messages and of bytes; when it is full, the
//! writer is told so and decides (wait, or cut the reader). Nobody is ever blocked in here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How much may wait in an outbox.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Messages.
    pub messages: usize,
    /// Bytes. One message may be larger, when nothing else waits.
    pub bytes: usize,
}

/// One message on its way to a client.
#[derive(Debug, Clone)]
pub struct Item {
    /// The JSON text, on one line.
    pub message: Bytes,
    /// Whether it answers a request of this stream (and is not a notification or a request of the server).
    pub answer: bool,
    /// What it is where it is a request of the server.
    pub request: Option<ServerRequest>,
}

/// A request of the server on its way to a client.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    /// The number that the client knows it by.
    pub number: u64,
    /// Who waits for the answer.
    pub requester: Weak<dyn Requester>,
}

/// Who asks clients something.
pub trait Requester: Send + Sync {
    /// The stream has ended before the client took the request with this number. Called from anywhere, and with locks held:
    /// must only take note of it.
    fn undelivered(&self, number: u64);
}

impl Item {
    /// A message that is neither an answer nor a request.
    pub fn notification(message: Bytes) -> Self {
        Self { message, answer: false, request: None }
    }

    fn lose(self) {
        if let Some(ServerRequest { number, requester }) = self.request
            && let Some(requester) = requester.upgrade()
        {
            requester.undelivered(number);
        }
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// The limits are reached.
    Full,
    /// Nobody reads any more, or the outbox is finished.
    Closed,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Item>,
    bytes: usize,
    finished: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writers: Vec<Waker>,
    /// Since when the first message in the queue has been waiting.
    waiting_since: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    limits: Budget,
}

/// The writing half; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Shared>);

/// The reading half. Dropping it closes the outbox.
#[derive(Debug)]
pub struct Cursor(Arc<Shared>);

impl Outbox {
    /// An empty outbox and its reader.
    pub fn new(limits: Budget) -> (Self, Cursor) {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            finished: false,
            reader_gone: false,
            reader: None,
            writers: Vec::new(),
            waiting_since: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), limits });
        (Self(Arc::clone(&shared)), Cursor(shared))
    }

    /// Queues a message, if there is room.
    pub fn push(&self, item: Item) -> Result<(), PushError> {
        self.push_within(item, self.0.limits)
    }

    /// Queues something that the gateway itself says, and that cannot wait for room: it may use as much room again.
    pub fn push_own(&self, item: Item) -> Result<(), PushError> {
        let Budget { messages, bytes } = self.0.limits;
        self.push_within(item, Budget { messages: messages.saturating_mul(2), bytes: bytes.saturating_mul(2) })
    }

    fn push_within(&self, item: Item, limits: Budget) -> Result<(), PushError> {
        let reader = {
            let mut state = self.0.state.lock();
            if state.finished || state.reader_gone {
                return Err(PushError::Closed);
            }
            if !state.has_room(item.message.len(), limits) {
                return Err(PushError::Full);
            }
            state.bytes += item.message.len();
            state.queue.push_back(item);
            state.waiting_since.get_or_insert_with(Instant::now);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Waits until a message of `len` bytes has room, or nobody reads any more.
    pub async fn room_for(&self, len: usize) {
        poll_fn(|context| {
            let mut state = self.0.state.lock();
            if state.finished || state.reader_gone || state.has_room(len, self.0.limits) {
                return Poll::Ready(());
            }
            state.writers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ends the stream once what is queued has been read.
    pub fn finish(&self) {
        self.close(|state| {
            state.finished = true;
            VecDeque::new()
        });
    }

    /// Ends the stream at once: what is queued is dropped.
    pub fn cut(&self) {
        self.close(|state| {
            state.finished = true;
            state.clear()
        });
    }

    fn close(&self, change: impl FnOnce(&mut State) -> VecDeque<Item>) {
        let (lost, reader, writers) = {
            let mut state = self.0.state.lock();
            (change(&mut state), state.reader.take(), std::mem::take(&mut state.writers))
        };
        lost.into_iter().for_each(Item::lose);
        reader.into_iter().chain(writers).for_each(Waker::wake);
    }

    /// Whether messages can still be delivered.
    pub fn is_open(&self) -> bool {
        let state = self.0.state.lock();
        !state.finished && !state.reader_gone
    }

    /// For how long the first message in the queue has been waiting to be taken.
    pub fn stalled_for(&self) -> Duration {
        self.0.state.lock().waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether both are ends of the same queue.
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl State {
    fn has_room(&self, len: usize, limits: Budget) -> bool {
        self.queue.is_empty() || (self.queue.len() < limits.messages && self.bytes + len <= limits.bytes)
    }

    /// Takes out what nobody will read any more.
    fn clear(&mut self) -> VecDeque<Item> {
        self.bytes = 0;
        self.waiting_since = None;
        std::mem::take(&mut self.queue)
    }
}

impl Cursor {
    /// The next message, or `None` at the end of the stream.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.0.state.lock();
        let Some(item) = state.queue.pop_front() else {
            if state.finished {
                return Poll::Ready(None);
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        state.bytes -= item.message.len();
        state.waiting_since = (!state.queue.is_empty()).then(Instant::now);
        let writers = std::mem::take(&mut state.writers);
        drop(state);
        writers.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(item))
    }

    /// Waits for the next message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Item> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let (lost, writers) = {
            let mut state = self.0.state.lock();
            state.reader_gone = true;
            (state.clear(), std::mem::take(&mut state.writers))
        };
        lost.into_iter().for_each(Item::lose);
        writers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Budget = Budget { messages: 2, bytes: 10 };

    fn item(text: &'static str) -> Item {
        Item::notification(Bytes::from_static(text.as_bytes()))
    }

    async fn next(cursor: &mut Cursor) -> Option<Bytes> {
        cursor.next().await.map(|item| item.message)
    }

    #[derive(Default)]
    struct Lost(Mutex<Vec<u64>>);

    impl Requester for Lost {
        fn undelivered(&self, number: u64) {
            self.0.lock().push(number);
        }
    }

    #[tokio::test]
    async fn bounds_hold_and_one_large_message_passes() {
        let (outbox, mut cursor) = Outbox::new(LIMITS);
        assert_eq!(outbox.push(item("a message larger than the limit")), Ok(()));
        assert_eq!(outbox.push(item("x")), Err(PushError::Full));
        assert!(cursor.next().await.is_some());
        assert_eq!(outbox.push(item("a")), Ok(()));
        assert_eq!(outbox.push(item("b")), Ok(()));
        assert_eq!(outbox.push(item("c")), Err(PushError::Full));
        outbox.finish();
        assert_eq!(outbox.push(item("d")), Err(PushError::Closed));
        assert_eq!(next(&mut cursor).await, Some("a".into()));
        assert_eq!(next(&mut cursor).await, Some("b".into()));
        assert_eq!(next(&mut cursor).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_room_and_a_stalled_reader_shows() {
        let (outbox, mut cursor) = Outbox::new(LIMITS);
        assert_eq!(outbox.push(item("0123456789")), Ok(()));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(outbox.stalled_for() >= Duration::from_secs(5));
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                outbox.room_for(5).await;
                outbox.push(item("12345"))
            }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(next(&mut cursor).await, Some("0123456789".into()));
        assert_eq!(waiting.await.ok(), Some(Ok(())));
        drop(cursor);
        assert_eq!(outbox.push(item("x")), Err(PushError::Closed));
        outbox.room_for(1000).await;
    }

    #[tokio::test]
    async fn a_cut_drops_what_waits() {
        let (outbox, mut cursor) = Outbox::new(LIMITS);
        assert_eq!(outbox.push(item("a")), Ok(()));
        outbox.cut();
        assert_eq!(next(&mut cursor).await, None);
        assert!(!outbox.is_open());
    }

    #[tokio::test]
    async fn who_asks_hears_of_what_the_client_has_not_taken_and_of_nothing_else() {
        let lost = Arc::new(Lost::default());
        let requester: Arc<dyn Requester> = lost.clone();
        let ask = |outbox: &Outbox, number| {
            let request = Some(ServerRequest { number, requester: Arc::downgrade(&requester) });
            assert_eq!(outbox.push(Item { request, ..item("?") }), Ok(()));
        };
        for (number, is_cut) in [(1, true), (3, false)] {
            let (outbox, mut cursor) = Outbox::new(LIMITS);
            ask(&outbox, number);
            assert!(cursor.next().await.is_some());
            ask(&outbox, number + 1);
            if is_cut {
                outbox.cut();
            } else {
                outbox.finish();
                assert_eq!(lost.0.lock().len(), 1, "it may still be read");
            }
            drop(cursor);
        }
        assert_eq!(*lost.0.lock(), [2, 4]);
    }
}
