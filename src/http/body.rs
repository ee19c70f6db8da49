//! The body of a response: bytes or an event stream, and the values that are kept until the body has been sent or dropped.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::stream::EventStream;

/// The body of a response.
pub struct Body {
    content: Content,
    /// The values that are dropped with the body.
    held: Vec<Box<dyn Send>>,
}

enum Content {
    /// The bytes that are not sent yet; `None` once they are sent.
    Whole(Option<Bytes>),
    Stream(Box<EventStream>),
}

impl Body {
    /// A body of no bytes.
    pub fn empty() -> Self {
        Self { content: Content::Whole(None), held: Vec::new() }
    }

    /// Keeps `value` until the body has been sent or is dropped.
    pub fn hold(mut self, value: impl Send + 'static) -> Self {
        self.held.push(Box::new(value));
        self
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self { content: Content::Whole(Some(bytes.into()).filter(|bytes| !bytes.is_empty())), held: Vec::new() }
    }
}

impl From<EventStream> for Body {
    fn from(stream: EventStream) -> Self {
        Self { content: Content::Stream(Box::new(stream)), held: Vec::new() }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(stream) => Pin::new(&mut **stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}
