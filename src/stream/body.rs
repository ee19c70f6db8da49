//! The body of a `text/event-stream` response: reads messages from a cursor, writes several events per frame, and
//! writes a keep-alive comment after a time without messages. The body ends with the stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::event::{KEEP_ALIVE, PREFIX, SUFFIX, encode_message, retry_field};
use super::expiry::Expiry;
use super::item::Entry;
use super::outbox::Cursor;

/// The size of a frame in bytes, from which on no further event is added. A message of this size or more is a frame of
/// its own, so that it is not copied.
const FRAME: usize = 16 * 1024;

/// The body of a response that carries Server-Sent Events.
pub struct EventStream {
    /// Frames that are written before the next message is read: complete events at the beginning, later the rest of the
    /// event of a large message.
    queued: VecDeque<Bytes>,
    /// The messages that are written before those of the cursor, from which they were read already.
    read: vec::IntoIter<Entry>,
    cursor: Cursor,
    /// The time without a frame after which a comment is written.
    keep_alive: Duration,
    /// The timer of the next comment.
    idle: Pin<Box<Sleep>>,
    last_sent: Instant,
    /// Whether the stream or the credential has ended: no further message is read.
    ended: bool,
    /// The time in the `retry` field at the end of the body; `None` if there is no such field, or it is written.
    on_end: Option<Duration>,
    /// The time at which the reader's credential expires, and the timer for that time. `None` if the credential does
    /// not expire.
    expiry: Option<(Expiry, Pin<Box<Sleep>>)>,
}

impl EventStream {
    /// A body that writes `queued` (complete events, in pieces) and then the messages that `cursor` reads. A comment is
    /// written after `keep_alive` without a message.
    pub fn new(queued: VecDeque<Bytes>, cursor: Cursor, keep_alive: Duration) -> Self {
        let idle = Box::pin(tokio::time::sleep(keep_alive));
        Self {
            queued,
            read: Vec::new().into_iter(),
            cursor,
            keep_alive,
            idle,
            last_sent: Instant::now(),
            ended: false,
            on_end: None,
            expiry: None,
        }
    }

    /// Writes `entries`, which were read from the cursor already, before the other messages. They stay charged until
    /// they are written.
    pub fn after(mut self, entries: Vec<Entry>) -> Self {
        self.read = entries.into_iter();
        self
    }

    /// The next message.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Entry>> {
        match self.read.next() {
            Some(entry) => Poll::Ready(Some(entry)),
            None => self.cursor.poll_next(context),
        }
    }

    /// Ends the body when `expiry` is over. Messages that have not been read by then are not written.
    pub fn ends_with(mut self, expiry: &Expiry) -> Self {
        self.expiry = expiry.at().map(|at| (expiry.clone(), Box::pin(tokio::time::sleep_until(at))));
        self
    }

    /// Writes a `retry` field at the end of the body: the client should reconnect after `after`.
    pub fn retry_at_end(mut self, after: Duration) -> Self {
        self.on_end = Some(after);
        self
    }

    /// Ready when nothing was sent for the keep-alive time. A sent frame does not reset the timer: when the timer
    /// fires, it is set again to the end of the keep-alive time.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.idle.as_mut().poll(context));
            let due = self.last_sent + self.keep_alive;
            self.idle.as_mut().reset(due.max(Instant::now() + Duration::from_millis(1)));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
        }
    }

    /// Ready when the reader's credential has expired. If a newer credential was shown since the timer was set, the
    /// timer is set again to the newer expiry.
    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((expiry, wake)) = &mut self.expiry else { return Poll::Pending };
        loop {
            std::task::ready!(wake.as_mut().poll(context));
            match expiry.at() {
                Some(at) if at > Instant::now() => wake.as_mut().reset(at),
                Some(_) => return Poll::Ready(()),
                None => {
                    self.expiry = None;
                    return Poll::Pending;
                }
            }
        }
    }

    /// A frame with `first` and the messages that the cursor has ready: at least [`FRAME`] bytes, if there are so many.
    /// It ends before a large message, whose bytes are the next frame.
    fn gather(&mut self, first: Entry, context: &mut Context<'_>) -> Bytes {
        let mut frame = BytesMut::with_capacity(first.message.len().min(FRAME) + 64);
        let mut next = Some(first);
        while let Some(Entry { message, .. }) = next.take() {
            if message.len() >= FRAME {
                frame.put_slice(PREFIX);
                self.queued.extend([message, Bytes::from_static(SUFFIX)]);
                break;
            }
            encode_message(&mut frame, &message);
            if frame.len() < FRAME {
                match self.poll_next(context) {
                    Poll::Ready(entry) => (self.ended, next) = (entry.is_none(), entry),
                    Poll::Pending => {}
                }
            }
        }
        frame.freeze()
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if !this.ended && this.poll_expired(context).is_ready() {
            this.ended = true;
        }
        let data = if let Some(queued) = this.queued.pop_front() {
            queued
        } else {
            match if this.ended { Poll::Ready(None) } else { this.poll_next(context) } {
                Poll::Ready(Some(entry)) => this.gather(entry, context),
                Poll::Ready(None) => {
                    this.ended = true;
                    let Some(after) = this.on_end.take() else { return Poll::Ready(None) };
                    retry_field(after)
                }
                Poll::Pending => {
                    std::task::ready!(this.poll_quiet(context));
                    KEEP_ALIVE
                }
            }
        };
        this.last_sent = Instant::now();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Account;
    use crate::stream::{Budget, Item, Outbox};
    use http_body_util::BodyExt as _;

    async fn text(body: &mut EventStream) -> Option<String> {
        let frame = body.frame().await?.ok()?.into_data().ok()?;
        String::from_utf8(frame.to_vec()).ok()
    }

    #[tokio::test(start_paused = true)]
    async fn gathers_messages_and_keeps_alive() {
        let (outbox, cursor) = Outbox::new(Budget { messages: 8, bytes: 1024 });
        let mut body = EventStream::new(VecDeque::new(), cursor, Duration::from_secs(15));
        for message in ["1", "2"] {
            assert!(outbox.push(Item::notification(message.into())).is_ok());
        }
        let both = "event: message\ndata: 1\n\nevent: message\ndata: 2\n\n";
        assert_eq!(text(&mut body).await.as_deref(), Some(both));
        let before = Instant::now();
        assert_eq!(text(&mut body).await.as_deref(), Some(": keep-alive\n\n"));
        assert_eq!(text(&mut body).await.as_deref(), Some(": keep-alive\n\n"));
        assert_eq!(before.elapsed().as_secs(), 30);
        outbox.finish();
        assert_eq!(text(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_large_message_is_a_frame_of_its_own_and_is_not_copied() {
        let (outbox, cursor) = Outbox::new(Budget { messages: 8, bytes: 4 * FRAME });
        let mut body = EventStream::new(VecDeque::new(), cursor, Duration::from_secs(15));
        let large = Bytes::from(vec![b'x'; FRAME]);
        for message in ["1".into(), large.clone(), "2".into()] {
            assert!(outbox.push(Item::notification(message)).is_ok());
        }
        outbox.finish();
        assert_eq!(text(&mut body).await.as_deref(), Some("event: message\ndata: 1\n\nevent: message\ndata: "));
        let frame = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        assert_eq!(frame.map(|frame| frame.as_ptr()), Some(large.as_ptr()));
        for rest in ["\n\n", "event: message\ndata: 2\n\n"] {
            assert_eq!(text(&mut body).await.as_deref(), Some(rest));
        }
        assert_eq!(text(&mut body).await, None);
    }

    #[tokio::test]
    async fn messages_that_were_read_already_stay_charged_until_they_are_written() {
        let (outbox, cursor) = Outbox::new(Budget { messages: 8, bytes: 1024 });
        assert!(outbox.push(Item::notification("last".into())).is_ok());
        outbox.finish();
        let account = Account::unlimited();
        let message = || account.copy(&[b'x'; 10_000]).unwrap_or_default();
        let entries = (1..6).map(|sequence| Entry { sequence, message: message(), answer: true, request: None });
        let mut body = EventStream::new(VecDeque::new(), cursor, Duration::from_secs(15)).after(entries.collect());
        let (before, mut sizes) = (account.held(), Vec::new());
        while let Some(frame) = text(&mut body).await {
            sizes.push((frame.matches("event: message").count(), (before - account.held()) * 5 / before));
        }
        assert_eq!(sizes, [(2, 2), (2, 4), (2, 5)], "two messages in a frame, and no more are copied");
    }

    #[tokio::test(start_paused = true)]
    async fn ends_with_the_credential_that_was_shown_last() {
        let (outbox, cursor) = Outbox::new(Budget { messages: 8, bytes: 1024 });
        let (expiry, start) = (Expiry::default(), Instant::now());
        let after = |seconds| Some(start + Duration::from_secs(seconds));
        expiry.extend(after(60));
        let mut body = EventStream::new(VecDeque::new(), cursor, Duration::from_secs(1000))
            .retry_at_end(Duration::from_secs(2))
            .ends_with(&expiry);
        // One that ends sooner changes nothing, one that ends later does.
        expiry.extend(after(30));
        expiry.extend(after(90));
        assert_eq!(text(&mut body).await.as_deref(), Some("retry: 2000\n\n"));
        assert_eq!(start.elapsed().as_secs(), 90);
        assert!(expiry.is_over());
        assert!(outbox.push(Item::notification("late".into())).is_ok(), "the stream is still held");
        assert_eq!(text(&mut body).await, None, "and says nothing more");
    }

    #[tokio::test(start_paused = true)]
    async fn goes_on_where_the_credential_has_no_end() {
        let (outbox, cursor) = Outbox::new(Budget { messages: 8, bytes: 1024 });
        let expiry = Expiry::default();
        expiry.extend(Some(Instant::now() + Duration::from_secs(1)));
        let mut body = EventStream::new(VecDeque::new(), cursor, Duration::from_secs(15)).ends_with(&expiry);
        expiry.extend(None);
        assert_eq!(text(&mut body).await.as_deref(), Some(": keep-alive\n\n"));
        outbox.finish();
        assert_eq!(text(&mut body).await, None);
    }

    #[tokio::test]
    async fn says_when_to_come_back() {
        let (outbox, cursor) = Outbox::new(Budget { messages: 8, bytes: 1024 });
        let mut body = EventStream::new(VecDeque::from(["x".into()]), cursor, Duration::from_secs(15))
            .retry_at_end(Duration::from_secs(2));
        outbox.finish();
        assert_eq!(text(&mut body).await.as_deref(), Some("x"));
        assert_eq!(text(&mut body).await.as_deref(), Some("retry: 2000\n\n"));
        assert_eq!(text(&mut body).await, None);
    }
}
