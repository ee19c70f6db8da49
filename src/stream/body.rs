//! The body of a `text/event-stream` response: takes what waits in an outbox, many messages to a frame, and writes a
//! keep-alive comment when nothing came for a while. Ends with the outbox.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::event::{KEEP_ALIVE, encode_message, retry_field};
use super::outbox::{Inbox, Item};

/// Events are gathered into one frame up to about this size.
const FRAME: usize = 64 * 1024;

/// The body of an SSE response.
pub struct EventStream {
    first: Option<Bytes>,
    inbox: Inbox,
    keep_alive: Duration,
    idle: Pin<Box<Sleep>>,
    last_sent: Instant,
    ended: bool,
    on_end: Option<Duration>,
    /// Dropped with the body: releases what the stream holds (a permit, a session).
    _guard: Box<dyn Send + Sync>,
}

impl EventStream {
    /// A stream that starts with `first` (ready-made events) and goes on with what comes in `inbox`.
    pub fn new(first: Option<Bytes>, inbox: Inbox, keep_alive: Duration, guard: Box<dyn Send + Sync>) -> Self {
        let idle = Box::pin(tokio::time::sleep(keep_alive));
        Self { first, inbox, keep_alive, idle, last_sent: Instant::now(), ended: false, on_end: None, _guard: guard }
    }

    /// When the stream ends, tells the client to come back after this time.
    pub fn retry_at_end(mut self, after: Duration) -> Self {
        self.on_end = Some(after);
        self
    }

    /// Ready when nothing was sent for the keep-alive time. The timer is moved only when it fires, not with each frame.
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

    fn gather(&mut self, first: Item, context: &mut Context<'_>) -> Bytes {
        let mut frame = BytesMut::with_capacity(first.message.len() + 64);
        encode_message(&mut frame, &first.message);
        while frame.len() < FRAME {
            match self.inbox.poll_next(context) {
                Poll::Ready(Some(item)) => encode_message(&mut frame, &item.message),
                Poll::Ready(None) => {
                    self.ended = true;
                    break;
                }
                Poll::Pending => break,
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
        let data = if let Some(first) = this.first.take() {
            first
        } else if this.ended {
            match this.on_end.take() {
                Some(after) => retry_field(after),
                None => return Poll::Ready(None),
            }
        } else {
            match this.inbox.poll_next(context) {
                Poll::Ready(Some(item)) => this.gather(item, context),
                Poll::Ready(None) => {
                    this.ended = true;
                    match this.on_end.take() {
                        Some(after) => retry_field(after),
                        None => return Poll::Ready(None),
                    }
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
    use crate::stream::outbox::{Limits, Outbox};
    use http_body_util::BodyExt as _;

    async fn text(body: &mut EventStream) -> Option<String> {
        let frame = body.frame().await?.ok()?.into_data().ok()?;
        String::from_utf8(frame.to_vec()).ok()
    }

    #[tokio::test(start_paused = true)]
    async fn gathers_messages_and_keeps_alive() {
        let (outbox, inbox) = Outbox::new(Limits { messages: 8, bytes: 1024 });
        let mut body = EventStream::new(None, inbox, Duration::from_secs(15), Box::new(()));
        for message in ["1", "2"] {
            assert!(outbox.push(Item::notice(message.into())).is_ok());
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
    async fn says_when_to_come_back() {
        let (outbox, inbox) = Outbox::new(Limits { messages: 8, bytes: 1024 });
        let mut body = EventStream::new(Some("x".into()), inbox, Duration::from_secs(15), Box::new(()))
            .retry_at_end(Duration::from_secs(2));
        outbox.finish();
        assert_eq!(text(&mut body).await.as_deref(), Some("x"));
        assert_eq!(text(&mut body).await.as_deref(), Some("retry: 2000\n\n"));
        assert_eq!(text(&mut body).await, None);
    }
}
