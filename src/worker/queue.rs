//! Frames on their way to a child's stdin: bounded in bytes, and many of them written with one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::error::Refused;

/// Frames written in one system call.
const BATCH: usize = 64;

#[derive(Debug)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

/// The queue; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct StdinQueue {
    state: Arc<Mutex<State>>,
    ready: Arc<Notify>,
    limit: usize,
    gauge: Gauge,
}

impl StdinQueue {
    /// A queue for at most `limit` bytes (one frame may be larger when nothing else waits).
    pub(super) fn new(limit: usize, gauge: Gauge) -> Self {
        let state = State { frames: VecDeque::new(), bytes: 0, closed: false };
        Self { state: Arc::new(Mutex::new(state)), ready: Arc::default(), limit, gauge }
    }

    /// Queues a frame, newline included.
    pub(super) fn push(&self, frame: Bytes) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Ended);
        }
        if !state.frames.is_empty() && state.bytes + frame.len() > self.limit {
            return Err(Refused::Busy);
        }
        state.bytes += frame.len();
        self.gauge.inc_by(i64::try_from(frame.len()).unwrap_or(i64::MAX));
        state.frames.push_back(frame);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes no more frames. What is queued is still written, unless `at_once`.
    pub(super) fn close(&self, at_once: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        if at_once {
            state.frames.clear();
            self.gauge.dec_by(i64::try_from(state.bytes).unwrap_or(i64::MAX));
            state.bytes = 0;
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Writes frames until the queue is closed and empty, or the child reads no more. Closes stdin at the end.
    pub(super) async fn write_to(self, mut stdin: pipe::Sender) -> io::Result<()> {
        let mut batch: VecDeque<Bytes> = VecDeque::with_capacity(BATCH);
        loop {
            if !self.take(&mut batch) {
                return Ok(());
            }
            if batch.is_empty() {
                tokio::select! {
                    () = self.ready.notified() => {}
                    // The child has closed its end: not only the next frame is to find that out.
                    _ = stdin.ready(Interest::ERROR) => {
                        self.close(true);
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                // Whoever else is about to push does so first: many frames in one system call, and one wake-up of the
                // child for them.
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

    /// Moves up to [`BATCH`] frames; `false` at the end.
    fn take(&self, batch: &mut VecDeque<Bytes>) -> bool {
        let mut state = self.state.lock();
        if state.frames.is_empty() {
            return !state.closed;
        }
        let count = state.frames.len().min(BATCH);
        batch.extend(state.frames.drain(..count));
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        state.bytes -= bytes;
        self.gauge.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
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
