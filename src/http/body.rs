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
    /// The media type, where the router sets the header `Content-Type`. `None` where the handler does, or the body has
    /// no certain type.
    media_type: Option<&'static str>,
    /// The values that are dropped with the body.
    held: Vec<Box<dyn Send>>,
}

impl Body {
    /// Keeps `value` until the body has been sent or is dropped.
    pub fn hold(mut self, value: impl Send + 'static) -> Self {
        self.held.push(Box::new(value));
        self
    }

    /// The same body, of this media type. A response that needs no other header than this needs no memory for headers.
    pub fn of_type(self, media_type: &'static str) -> Self {
        Self { media_type: Some(media_type), ..self }
    }

    /// The media type, if it was set by [`of_type`](Self::of_type).
    pub fn media_type(&self) -> Option<&'static str> {
        self.media_type
    }

    /// A body of no bytes that keeps what this one keeps.
    pub fn emptied(self) -> Self {
        Self { content: Either::Left(Full::default()), ..self }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self { content: Either::Left(Full::new(bytes.into())), media_type: None, held: Vec::new() }
    }
}

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Self {
        Self { content: Either::Right(Either::Left(pieces)), media_type: None, held: Vec::new() }
    }
}

impl From<EventStream> for Body {
    fn from(stream: EventStream) -> Self {
        Self { content: Either::Right(Either::Right(Box::new(stream))), media_type: None, held: Vec::new() }
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
