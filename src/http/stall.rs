//! Fails a connection whose peer reads no data for too long, or does not send the first bytes in time. The memory and
//! the permit of a client that has stopped reading are freed that way. A peer that writes fast is read in turns, and one
//! whose frames carry little, slowly.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::frames::Frames;
use super::turn::ReadingTurn;

/// The number of bytes that distinguish HTTP/1 from HTTP/2: the length of the HTTP/2 preface (RFC 9113 section 3.4). No
/// time-out of either protocol applies before these bytes.
const PREFACE: usize = 24;

/// A TCP stream with time limits on writes and on the first bytes read.
#[derive(Debug)]
pub struct NoStall {
    stream: TcpStream,
    /// The longest time that a write may make no progress.
    limit: Duration,
    /// The timer of a write that makes no progress. `None` while no write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The time limit on the first bytes. `None` once these bytes have been read.
    opening: Option<Opening>,
    turn: ReadingTurn,
    frames: Frames,
}

/// The time limit on the first bytes of a connection.
#[derive(Debug)]
struct Opening {
    /// The number of bytes still to be read.
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl NoStall {
    /// Wraps `stream`. A write or the shutdown fails with `TimedOut` after no progress for `limit`. A read fails with
    /// `TimedOut` if the first [`PREFACE`] bytes have not come within `opening` from now.
    pub fn new(stream: TcpStream, limit: Duration, opening: Duration) -> Self {
        let opening = Opening { missing: PREFACE, deadline: Box::pin(tokio::time::sleep(opening)) };
        Self {
            stream,
            limit,
            stalled: None,
            opening: Some(opening),
            turn: ReadingTurn::default(),
            frames: Frames::default(),
        }
    }

    /// The result of a write, or an error if the write has waited for the limit.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        std::task::ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for NoStall {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.turn.poll_read_on(context));
        std::task::ready!(self.frames.poll_credit(context));
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        match read.is_ready() {
            true => {
                self.turn.count(bytes);
                self.frames.count(buffer.filled().get(before..).unwrap_or_default());
            }
            false => self.turn.end(),
        }
        let Some(opening) = &mut self.opening else { return read };
        if read.is_pending() {
            std::task::ready!(opening.deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing")));
        }
        opening.missing = opening.missing.saturating_sub(bytes);
        if opening.missing == 0 {
            self.opening = None;
        }
        read
    }
}

impl AsyncWrite for NoStall {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(shut, context)
    }
}
