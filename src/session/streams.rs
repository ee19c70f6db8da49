//! Decides which stream of a session carries a message of the server that answers no request, and keeps such messages while
//! no stream is open.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::stream::{Budget, Exchange, Item, Outbox, Usage};
use crate::worker::{InFlight, Route, Unsolicited};

/// The bounds of the messages that a session keeps while its client has no GET stream.
const BACKLOG: Budget = Budget { messages: 256, bytes: 1024 * 1024 };

/// The transport that a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP+SSE (MCP 2024-11-05): one stream carries all messages to the client, and the session ends with the stream.
    Sse,
    /// Streamable HTTP (MCP 2025-03-26 to 2025-11-25): the response to a POST carries its answers, a GET stream carries the
    /// rest.
    Streamable,
}

/// The open stream of a session, if there is one, and the messages that are kept for the next stream.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// The open stream.
    open: Option<Arc<Exchange>>,
    /// The kept messages, the oldest first.
    backlog: VecDeque<Item>,
    /// The number of kept messages and of their bytes.
    backlog_usage: Usage,
}

impl Streams {
    /// Makes `outbox` the open stream and ends the earlier one. The kept messages go to the new stream, as far as it has
    /// room.
    pub(super) fn open(&mut self, outbox: Outbox) {
        if let Some(earlier) = self.open.take() {
            earlier.outbox().finish();
        }
        while let Some(item) = self.backlog.pop_front() {
            if outbox.push(item.clone()).is_err() {
                self.backlog.push_front(item);
                break;
            }
            self.backlog_usage.remove(item.message.len());
        }
        self.open = Some(Arc::new(Exchange::of_stream(outbox)));
    }

    /// The open stream; `None` if its client has gone.
    pub(super) fn current(&mut self) -> Option<&Arc<Exchange>> {
        if self.open.as_ref().is_some_and(|stream| !stream.outbox().is_open()) {
            self.open = None;
        }
        self.open.as_ref()
    }

    /// Ends the open stream, if there is one.
    pub(super) fn close(&mut self) {
        if let Some(stream) = self.open.take() {
            stream.outbox().finish();
        }
    }

    /// Chooses the stream for a message of the server, or keeps the message. A message goes to one stream at most
    /// (Streamable HTTP, "Multiple Connections").
    pub(super) fn route(
        &mut self,
        transport: Transport,
        item: &Item,
        kind: Unsolicited,
        in_flight: &InFlight,
    ) -> Route {
        let stream = self.current().map(|stream| stream.outbox().clone());
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

    /// Whether a message with the same bytes is kept.
    pub(super) fn keeps(&self, message: &[u8]) -> bool {
        self.backlog.iter().any(|item| item.message == message)
    }

    /// Removes the kept request of the server with this number, which has ended. Returns whether the request was kept.
    pub(super) fn forget(&mut self, number: u64) -> bool {
        let is_it = |item: &Item| item.request.as_ref().is_some_and(|request| request.number == number);
        let kept = self.backlog.iter().position(is_it).and_then(|place| self.backlog.remove(place));
        kept.is_some_and(|item| {
            self.backlog_usage.remove(item.message.len());
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Cursor, Requester, ServerRequest};
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
        (InFlight { count: 1, latest: Some(Arc::new(Exchange::of_request(outbox, 1))) }, cursor)
    }

    fn routed(streams: &mut Streams, kind: Unsolicited, in_flight: &InFlight) -> Option<Outbox> {
        match streams.route(TO, &Item::notification("{}".into()), kind, in_flight) {
            Route::Stream(outbox) => Some(outbox),
            Route::Kept | Route::Nowhere => None,
        }
    }

    #[test]
    fn what_one_call_may_have_caused_goes_to_its_stream_and_the_rest_to_the_get_stream() {
        let mut streams = Streams::default();
        let (mut in_flight, _cursor) = call();
        let of_call = in_flight.latest.as_ref().map(|e| e.outbox().clone());
        let same = |a: Option<Outbox>, b: &Option<Outbox>| matches!((a, b), (Some(a), Some(b)) if a.same_as(b));
        assert!(same(routed(&mut streams, Unsolicited::Request, &in_flight), &of_call));
        assert!(routed(&mut streams, Unsolicited::Announcement, &in_flight).is_none());
        let (get, get_cursor) = Outbox::new(LIMITS);
        streams.open(get.clone());
        let get = Some(get);
        assert!(same(routed(&mut streams, Unsolicited::Announcement, &in_flight), &get));
        assert!(same(routed(&mut streams, Unsolicited::Notification, &in_flight), &of_call));
        in_flight.count = 2;
        assert!(same(routed(&mut streams, Unsolicited::Request, &in_flight), &get));
        drop(get_cursor);
        assert!(same(routed(&mut streams, Unsolicited::Request, &in_flight), &of_call));
    }

    #[tokio::test]
    async fn what_came_too_early_waits_for_the_stream_within_bounds() {
        let mut streams = Streams::default();
        let keep = |streams: &mut Streams, number| {
            let requester: Weak<Nobody> = Weak::new();
            let item = Item { request: Some(ServerRequest { number, requester }), ..Item::notification("{}".into()) };
            matches!(streams.route(TO, &item, Unsolicited::Request, &InFlight::default()), Route::Kept)
        };
        let (first, last) = (1000, 1000 + BACKLOG.messages as u64);
        for number in first..last {
            assert!(keep(&mut streams, number));
        }
        assert!(!keep(&mut streams, last) && !streams.forget(last));
        assert!(streams.forget(first) && !streams.forget(first), "one that is over is not kept");
        assert!(keep(&mut streams, last), "which makes room");
        let (outbox, mut cursor) = Outbox::new(LIMITS);
        streams.open(outbox);
        for _ in 0..BACKLOG.messages {
            assert!(cursor.next().await.is_some());
        }
        let (other, _other_cursor) = Outbox::new(LIMITS);
        streams.open(other);
        assert!(cursor.next().await.is_none(), "the newer stream takes over");
    }
}
