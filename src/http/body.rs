//! The body of a response: bytes or an event stream, and the values that are kept until the body has been sent or
//! dropped.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{Either, Full};

use crate::stream::EventStream;

/// The body of a response.
pub struct Body {
    content: Either<Full<Bytes>, Box<EventStream>>,
    /// The values that are dropped with the body.
    held: Vec<Box<dyn Send>>,
}

impl Body {
    /// Keeps `value` until the body has been sent or is dropped.
    pub fn hold(mut self, value: impl Send + 'static) -> Self {
        self.held.push(Box::new(value));
        self
    }

    /// A body of no bytes that keeps what this one keeps.
    pub fn emptied(self) -> Self {
        Self { content: Either::Left(Full::default()), held: self.held }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self { content: Either::Left(Full::new(bytes.into())), held: Vec::new() }
    }
}

impl From<EventStream> for Body {
    fn from(stream: EventStream) -> Self {
        Self { content: Either::Right(Box::new(stream)), held: Vec::new() }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.content).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
