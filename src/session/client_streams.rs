//! The client's side of a session: the streams that requests and notifications of the server take, for all links of the session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::link::Client;
use super::streams::{Streams, Transport};
use crate::stream::{Budget, Cursor, Exchange, Item, Outbox};
use crate::worker::{InFlight, Route, Unsolicited};

/// The streams of one client.
pub(super) struct ClientStreams {
    /// How the client is connected.
    pub(super) transport: Transport,
    /// The bounds of each stream.
    limits: Budget,
    state: Mutex<State>,
}

/// The state of a client's streams.
struct State {
    /// The open stream, and the messages kept for the next one.
    streams: Streams,
    /// Whether the session has ended: no stream stays open.
    is_closed: bool,
    /// When a stream was last known to be open; before the first stream, when the session was opened.
    last_open: Instant,
}

impl ClientStreams {
    /// A client without an open stream. `limits` bound each stream.
    pub(super) fn new(transport: Transport, limits: Budget) -> Self {
        let state = State { streams: Streams::default(), is_closed: false, last_open: Instant::now() };
        Self { transport, limits, state: Mutex::new(state) }
    }

    /// Opens the stream for messages that answer no call, and ends the one before it.
    pub(super) fn open(&self) -> Cursor {
        let (outbox, cursor) = Outbox::new(self.limits);
        let mut state = self.state.lock();
        state.last_open = Instant::now();
        if state.is_closed {
            outbox.finish();
        }
        state.streams.open(outbox);
        cursor
    }

    /// The open stream, as the exchange of every call (HTTP+SSE).
    pub(super) fn current(&self) -> Option<Arc<Exchange>> {
        self.state.lock().streams.current().cloned()
    }

    /// Ends the open stream, and every stream that is opened from now on.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.streams.close();
    }

    /// The time since a stream was last open; `None` while one is.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        if state.streams.current().is_some() {
            state.last_open = Instant::now();
            return None;
        }
        Some(state.last_open.elapsed())
    }
}

impl Client for ClientStreams {
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route {
        self.state.lock().streams.route(self.transport, item, kind, in_flight)
    }

    fn forget(&self, number: u64) -> bool {
        self.state.lock().streams.forget(number)
    }

    fn announce(&self, message: Bytes) {
        let item = Item::notification(message);
        let route = {
            let mut state = self.state.lock();
            if state.streams.keeps(&item.message) {
                return;
            }
            state.streams.route(self.transport, &item, Unsolicited::Announcement, &InFlight::default())
        };
        if let Route::Stream(outbox) = route {
            // A client that does not read its stream misses a hint.
            let _ = outbox.push(item);
        }
    }

    fn is_listening(&self) -> bool {
        self.state.lock().streams.current().is_some()
    }
}
