//! Response bodies over HTTP/2. HTTP/2 has a window for each response, so a client may leave one response unread while
//! the connection is in use, and no time-out on writes to the connection notices. Such a response is taken away.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::Body;

/// The largest number of bytes that hyper is given at once. The rest waits here for the window of the client, and can be
/// taken away.
const PIECE: usize = 64 * 1024;

/// The unfinished response bodies of one connection.
#[derive(Default)]
pub struct Http2Bodies(Mutex<Vec<Weak<Mutex<Source>>>>);

/// A response body in pieces of at most 64 KiB. hyper asks for a piece when the client has given window for it.
pub struct Http2Body(Arc<Mutex<Source>>);

struct Source {
    /// The body; `None` behind its end, or if it has been taken away.
    body: Option<Body>,
    /// The part of a frame of the body that hyper has not taken yet.
    frame: Bytes,
    /// Since when hyper has not asked for more. `None` while the body has nothing to send.
    unread_since: Option<Instant>,
    is_taken_away: bool,
}

impl Http2Bodies {
    /// Wraps the body of a response.
    pub fn watch(&self, body: Body) -> Http2Body {
        let (frame, unread_since) = (Bytes::new(), Some(Instant::now()));
        let source = Source { body: Some(body), frame, unread_since, is_taken_away: false };
        let source = Arc::new(Mutex::new(source));
        let mut all = self.0.lock();
        all.retain(|source| source.strong_count() > 0);
        all.push(Arc::downgrade(&source));
        Http2Body(source)
    }

    /// Takes away, with all that it holds, each response that the client has not read from for `limit`. Such a response
    /// is noticed after 1.5 times that time at most. Never ends.
    pub async fn cut_unread(&self, limit: Duration) -> Infallible {
        loop {
            tokio::time::sleep(limit / 2).await;
            let all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
            for source in all {
                let taken = source.lock().take_if_unread_for(limit);
                // Not under the lock: the end of a stream may end a session.
                drop(taken);
            }
        }
    }
}

impl Source {
    fn take_if_unread_for(&mut self, limit: Duration) -> Option<Body> {
        self.unread_since.take_if(|since| since.elapsed() >= limit)?;
        self.is_taken_away = true;
        self.frame = Bytes::new();
        self.body.take()
    }
}

impl HttpBody for Http2Body {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut source = self.0.lock();
        if source.is_taken_away {
            return Poll::Ready(Some(Err("the client has not read its response".into())));
        }
        while source.frame.is_empty() {
            source.unread_since = None;
            let Some(body) = &mut source.body else { return Poll::Ready(None) };
            let Some(frame) = std::task::ready!(Pin::new(body).poll_frame(context)).transpose()? else {
                source.body = None;
                return Poll::Ready(None);
            };
            source.frame = frame.into_data().unwrap_or_default();
        }
        source.unread_since = Some(Instant::now());
        let length = source.frame.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(source.frame.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        let source = self.0.lock();
        !source.is_taken_away && source.frame.is_empty() && source.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.0.lock();
        let rest = source.body.as_ref().and_then(|body| body.size_hint().exact());
        rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + source.frame.len() as u64))
    }
}
