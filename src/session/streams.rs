//! The streams of a session to its client: which of them carries a message of the server that answers no request, and
//! the messages that are kept while no stream is open.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::link::Client;
use crate::memory::Account;
use crate::stream::{Budget, Cursor, Exchange, Item, Outbox, Usage};
use crate::worker::{InFlight, Route, Unsolicited};

/// The bounds of the messages that a session keeps while its client has no GET stream.
const BACKLOG: Budget = Budget { messages: 256, bytes: 1024 * 1024 };

/// The transport that a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP+SSE (MCP 2024-11-05): one stream carries all messages to the client, and the session ends with the stream.
    Sse,
    /// Streamable HTTP (MCP 2025-03-26 to 2025-11-25): the response to a POST carries its answers, a GET stream carries
    /// the rest.
    Streamable,
}

/// The streams of one client, for all links of its session.
pub(super) struct Streams {
    /// The transport of the client.
    pub(super) transport: Transport,
    /// The bounds of each stream.
    budget: Budget,
    /// The account of the client, for what waits for the client.
    account: Account,
    /// The open stream and the kept messages.
    state: Mutex<State>,
}

/// The changing state of a client's streams.
struct State {
    /// The open stream, as an exchange that takes any number of answers.
    open: Option<Arc<Exchange>>,
    /// The messages kept for the next stream, the oldest first.
    backlog: VecDeque<Item>,
    /// The number of kept messages and of their bytes.
    backlog_usage: Usage,
    /// Whether the session has ended: no stream stays open.
    is_closed: bool,
    /// When the latest stream that has ended was left by its client, or was found to have ended; before the first stream,
    /// when the session was opened.
    last_open: Instant,
    /// When the open stream was opened, or got its last message other than an answer; the same as `last_open` without
    /// an open stream.
    last_sent: Instant,
}

impl Streams {
    /// A client without an open stream. `budget` bounds each stream.
    pub(super) fn new(transport: Transport, budget: Budget, account: Account) -> Self {
        let (open, backlog, backlog_usage) = (None, VecDeque::new(), Usage::default());
        let now = Instant::now();
        let state = State { open, backlog, backlog_usage, is_closed: false, last_open: now, last_sent: now };
        Self { transport, budget, account, state: Mutex::new(state) }
    }

    /// Opens the stream for messages that answer no request, and ends the one before it. The kept messages go to the
    /// new stream, as far as it has room. Once the session has ended, the new stream has ended as well.
    pub(super) fn open(&self) -> Cursor {
        let (outbox, cursor) = Outbox::new(self.budget);
        let mut state = self.state.lock();
        state.end_open();
        let now = Instant::now();
        (state.last_open, state.last_sent) = (now, now);
        if state.is_closed {
            outbox.finish();
        }
        while let Some(item) = state.backlog.pop_front() {
            if outbox.push(item.clone()).is_err() {
                state.backlog.push_front(item);
                break;
            }
            state.backlog_usage.remove(item.message.len());
        }
        state.open = Some(Arc::new(Exchange::of_stream(outbox, &self.account)));
        cursor
    }

    /// The open stream, as the exchange of every request (HTTP+SSE); `None` if its client has gone.
    pub(super) fn current(&self) -> Option<Arc<Exchange>> {
        self.state.lock().current().cloned()
    }

    /// Ends the open stream, and every stream that is opened from now on.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.end_open();
    }

    /// Whether a stream is open, and when the client last used the streams: of an open stream its opening or its last
    /// message, otherwise when a stream was last known to be open.
    pub(super) fn last_use(&self) -> (bool, Instant) {
        let mut state = self.state.lock();
        match state.current().is_some() {
            true => (true, state.last_sent),
            false => (false, state.last_open),
        }
    }
}

impl State {
    /// The open stream; `None` if its client has gone.
    fn current(&mut self) -> Option<&Arc<Exchange>> {
        if let Some(stream) = self.open.take_if(|stream| !stream.outbox().is_open()) {
            self.last_open = stream.outbox().left().unwrap_or_else(Instant::now);
        }
        self.open.as_ref()
    }

    /// Ends the open stream, if there is one.
    fn end_open(&mut self) {
        if let Some(stream) = self.open.take() {
            stream.outbox().finish();
        }
    }

    /// Chooses the stream for a message of the server, or keeps the message. A message goes to one stream at most
    /// (Streamable HTTP, "Multiple Connections"): with a single call in flight to that call's stream, otherwise to the
    /// open stream, and only then to the stream of the latest call. An announcement goes to the open stream only. With
    /// HTTP+SSE, no message is kept.
    fn route(&mut self, transport: Transport, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route {
        let stream = self.current().map(|stream| stream.outbox().clone());
        if stream.is_some() {
            self.last_sent = Instant::now();
        }
        if transport == Transport::Sse {
            return stream.map_or(Route::Nowhere, Route::Stream);
        }
        let call =
            in_flight.latest.as_ref().map(|exchange| exchange.outbox()).filter(|outbox| outbox.is_open()).cloned();
        let chosen = match (kind, in_flight.count) {
            (Unsolicited::Announcement, _) => stream,
            (_, 1) => call.or(stream),
            _ => stream.or(call),
        };
        match chosen {
            Some(outbox) => Route::Stream(outbox),
            None => self.keep(item),
        }
    }

    /// Keeps a message for the next stream, if the bounds allow.
    fn keep(&mut self, item: &Item) -> Route {
        let len = item.message.len();
        if !BACKLOG.fits(self.backlog_usage, len) {
            return Route::Nowhere;
        }
        self.backlog_usage.add(len);
        self.backlog.push_back(item.clone());
        Route::Kept
    }
}

impl Client for Streams {
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route {
        self.state.lock().route(self.transport, item, kind, in_flight)
    }

    fn forget(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        let is_it = |item: &Item| item.request.as_ref().is_some_and(|request| request.number == number);
        let kept = state.backlog.iter().position(is_it).and_then(|place| state.backlog.remove(place));
        kept.inspect(|item| state.backlog_usage.remove(item.message.len())).is_some()
    }

    fn announce(&self, message: Bytes) {
        let item = Item::notification(message);
        let route = {
            let mut state = self.state.lock();
            if state.backlog.iter().any(|kept| kept.message == item.message) {
                return;
            }
            state.route(self.transport, &item, Unsolicited::Announcement, &InFlight::default())
        };
        if let Route::Stream(outbox) = route {
            // A client that does not read its stream misses a hint.
            let _ = outbox.push(item);
        }
    }

    fn is_listening(&self) -> bool {
        self.state.lock().current().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Requester, ServerRequest};
    use std::sync::Weak;

    const LIMITS: Budget = Budget { messages: 1000, bytes: 10 * 1024 * 1024 };
    const TO: Transport = Transport::Streamable;

    enum Nobody {}

    impl Requester for Nobody {
        fn undelivered(&self, _: u64) {
            match *self {}
        }
    }

    fn call() -> (InFlight, Cursor) {
        let (outbox, cursor) = Outbox::new(LIMITS);
        (InFlight { count: 1, latest: Some(Arc::new(Exchange::of_request(outbox, 1, &Account::unlimited()))) }, cursor)
    }

    fn routed(streams: &Streams, kind: Unsolicited, in_flight: &InFlight) -> Option<Outbox> {
        match streams.route(&Item::notification("{}".into()), kind, in_flight) {
            Route::Stream(outbox) => Some(outbox),
            Route::Kept | Route::Nowhere => None,
        }
    }

    #[test]
    fn what_one_call_may_have_caused_goes_to_its_stream_and_the_rest_to_the_get_stream() {
        let streams = Streams::new(TO, LIMITS, Account::unlimited());
        let (mut in_flight, _cursor) = call();
        let of_call = in_flight.latest.as_ref().map(|e| e.outbox().clone());
        let same = |a: Option<Outbox>, b: &Option<Outbox>| matches!((a, b), (Some(a), Some(b)) if a.same_as(b));
        assert!(same(routed(&streams, Unsolicited::Request, &in_flight), &of_call));
        assert!(routed(&streams, Unsolicited::Announcement, &in_flight).is_none());
        let get_cursor = streams.open();
        let get = streams.current().map(|stream| stream.outbox().clone());
        assert!(same(routed(&streams, Unsolicited::Announcement, &in_flight), &get));
        assert!(same(routed(&streams, Unsolicited::Notification, &in_flight), &of_call));
        in_flight.count = 2;
        assert!(same(routed(&streams, Unsolicited::Request, &in_flight), &get));
        drop(get_cursor);
        assert!(same(routed(&streams, Unsolicited::Request, &in_flight), &of_call));
    }

    #[tokio::test]
    async fn what_came_too_early_waits_for_the_stream_within_bounds() {
        let streams = Streams::new(TO, LIMITS, Account::unlimited());
        let keep = |streams: &Streams, number| {
            let requester: Weak<Nobody> = Weak::new();
            let item = Item { request: Some(ServerRequest { number, requester }), ..Item::notification("{}".into()) };
            matches!(streams.route(&item, Unsolicited::Request, &InFlight::default()), Route::Kept)
        };
        let (first, last) = (1000, 1000 + BACKLOG.messages as u64);
        for number in first..last {
            assert!(keep(&streams, number));
        }
        assert!(!keep(&streams, last) && !streams.forget(last));
        assert!(streams.forget(first) && !streams.forget(first), "one that is over is not kept");
        assert!(keep(&streams, last), "which makes room");
        let mut cursor = streams.open();
        for _ in 0..BACKLOG.messages {
            assert!(cursor.next().await.is_some());
        }
        let _other = streams.open();
        assert!(cursor.next().await.is_none(), "the newer stream takes over");
    }
}
