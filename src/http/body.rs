//! The body of a response: bytes, pieces or an event stream, and the values that are kept until the body has been sent
//! or dropped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{Either, Full};

use crate::stream::EventStream;

/// The body of a response.
pub struct Body {
    content: Either<Full<Bytes>, Either<Pieces, Box<EventStream>>>,
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

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Self {
        Self { content: Either::Right(Either::Left(pieces)), held: Vec::new() }
    }
}

impl From<EventStream> for Body {
    fn from(stream: EventStream) -> Self {
        Self { content: Either::Right(Either::Right(Box::new(stream))), held: Vec::new() }
    }
}

/// Bytes in pieces, of which each is dropped when it is sent.
pub struct Pieces(pub VecDeque<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
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
