//! Reads a child's stdout, line by line, and delivers what it says. When a client does not keep up, this task waits
//! for it, and so does the child; after a time-out the client is cut. Nobody else waits: the child is this session's.

use std::future::Future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout};

use super::multiplexer::Incoming;
use super::peer::Route;
use super::supervisor::Shared;
use crate::jsonrpc::{Envelope, Frame, Framer, Kind, parse, split_batch};
use crate::stream::{Item, Outbox, PushError};
use crate::telemetry::{Direction, DropReason};

/// Room that is made for each read, in bytes.
const READ: usize = 64 * 1024;

/// Reads until stdout ends.
pub(super) async fn read_stdout(shared: Arc<Shared>, mut stdout: pipe::Receiver) {
    let mut framer = Framer::new(shared.server.limits.max_line);
    loop {
        framer.buffer.reserve(READ);
        let ended = match stdout.read_buf(&mut framer.buffer).await {
            Ok(read) => read == 0,
            Err(error) => {
                tracing::warn!(server = %shared.server.name, %error, "stdout of a child could not be read");
                true
            }
        };
        while let Some(frame) = framer.next_frame().or_else(|| if ended { framer.finish() } else { None }) {
            receive(&shared, frame).await;
        }
        if ended {
            return;
        }
    }
}

async fn receive(shared: &Shared, frame: Frame) {
    let line = match frame {
        Frame::Line(line) => without_carriage_returns(line),
        Frame::Oversized(bytes) => {
            let limit = shared.server.limits.max_line;
            tracing::warn!(server = %shared.server.name, bytes, limit, "a line on stdout is over limits.max_line, and was left out");
            shared.metrics.dropped(DropReason::Oversized);
            return;
        }
    };
    shared.metrics.carried(Direction::ToClient, line.len());
    match parse(&line) {
        Ok(envelope) => dispatch(shared, &line, &envelope).await,
        Err(_) => receive_batch(shared, &line).await,
    }
}

/// Servers of 2025-03-26 may write arrays: each message goes its own way. Anything else is not for a client.
async fn receive_batch(shared: &Shared, line: &Bytes) {
    if let Some(Ok(messages)) = split_batch(line) {
        for message in messages {
            let message = line.slice_ref(message.as_bytes());
            match parse(&message) {
                Ok(envelope) => dispatch(shared, &message, &envelope).await,
                Err(_) => shared.count_noise(message.len()),
            }
        }
    } else {
        shared.count_noise(line.len());
    }
}

async fn dispatch(shared: &Shared, message: &Bytes, envelope: &Envelope<'_>) {
    let timeout = shared.server.limits.call_timeout;
    let (incoming, in_flight) = {
        let mut multiplexer = shared.multiplexer.lock();
        let incoming = multiplexer.receive(message.clone(), envelope, Instant::now(), timeout);
        let in_flight = matches!(incoming, Incoming::Unsolicited(..)).then(|| multiplexer.in_flight());
        (incoming, in_flight.unwrap_or_default())
    };
    match incoming {
        Incoming::Answer(call, message) => {
            shared.metrics.answered(call.method, call.started.elapsed().as_secs_f64());
            let outbox = call.exchange.outbox();
            if !deliver(shared, outbox, message.len(), || call.exchange.answer(message.clone())).await {
                call.exchange.settle();
            }
        }
        Incoming::Inform(exchange, message) => {
            deliver(shared, exchange.outbox(), message.len(), || exchange.inform(message.clone())).await;
        }
        Incoming::Unsolicited(kind, message, number) => {
            let delivered = match shared.peer().map(|peer| peer.route(&message, kind, &in_flight)) {
                Some(Route::Stream(outbox)) => {
                    let item = Item { message, answer: false };
                    deliver(shared, &outbox, item.message.len(), || outbox.push(item.clone())).await
                }
                Some(Route::Kept) => true,
                Some(Route::Nowhere) | None => {
                    shared.metrics.dropped(DropReason::NoStream);
                    false
                }
            };
            let refusal =
                number.filter(|_| !delivered).and_then(|number| shared.multiplexer.lock().undelivered(number));
            if let Some(refusal) = refusal {
                shared.send(refusal);
            }
        }
        Incoming::Reply(frame) => shared.send(frame),
        Incoming::Drop(reason) => {
            debug_assert!(reason != DropReason::NotJson || envelope.kind == Kind::Request);
            shared.metrics.dropped(reason);
        }
    }
}

/// Pushes until it is taken, or nobody reads any more, or the reader has been too slow. Says whether it was taken.
async fn deliver(shared: &Shared, outbox: &Outbox, len: usize, push: impl Fn() -> Result<(), PushError>) -> bool {
    loop {
        match push() {
            Ok(()) => return true,
            Err(PushError::Closed) => {
                shared.metrics.dropped(DropReason::StreamClosed);
                return false;
            }
            Err(PushError::Full) => {}
        }
        if wait(shared, outbox.room_for(len)).await.is_none() {
            outbox.cut();
            shared.metrics.dropped(DropReason::SlowClient);
            tracing::warn!(server = %shared.server.name, session = %shared.origin.session, "the client does not read its stream, and was cut");
            if let Some(peer) = shared.peer() {
                peer.lagged(outbox);
            }
            return false;
        }
    }
}

async fn wait(shared: &Shared, room: impl Future<Output = ()>) -> Option<()> {
    timeout(shared.slow_client_timeout, room).await.ok()
}

/// Inside a JSON text a raw CR is white space, but in an event stream it would end the line.
fn without_carriage_returns(line: Bytes) -> Bytes {
    if memchr::memchr(b'\r', &line).is_none() {
        return line;
    }
    let mut line = BytesMut::from(line);
    line.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
    line.freeze()
}
