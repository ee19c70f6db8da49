//! Where the answers to a request go: the unit that a reply is routed to.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::item::Item;
use super::log::PushError;
use super::outbox::Outbox;

/// An HTTP request that awaits answers, or the one stream of an HTTP+SSE session that takes them all.
#[derive(Debug)]
pub struct Exchange {
    outbox: Outbox,
    /// Answers still to come; `None` where the stream outlives its answers.
    awaiting: Option<AtomicUsize>,
}

impl Exchange {
    /// The exchange of one HTTP request with `requests` JSON-RPC requests in it: ends with the last answer.
    pub fn of_request(outbox: Outbox, requests: usize) -> Self {
        Self { outbox, awaiting: Some(AtomicUsize::new(requests)) }
    }

    /// The stream of a session, which stays open.
    pub fn of_stream(outbox: Outbox) -> Self {
        Self { outbox, awaiting: None }
    }

    /// Where its messages go.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Delivers an answer. After [`PushError::Full`] the answer still counts as to come.
    pub fn answer(&self, message: Bytes) -> Result<(), PushError> {
        self.outbox.push(Item { message, answer: true, request: None })?;
        self.settle();
        Ok(())
    }

    /// Delivers an answer that the gateway has made itself, which waits for nobody. A client that is so far behind that
    /// there is no room for it is cut: it would wait for it for ever. Either way the request is settled.
    ///
    /// # Errors
    /// Why the answer was lost.
    pub fn answer_or_cut(&self, message: Bytes) -> Result<(), PushError> {
        let pushed = self.outbox.push_own(Item { message, answer: true, request: None });
        if pushed == Err(PushError::Full) {
            self.outbox.cut();
        }
        self.settle();
        pushed
    }

    /// Delivers something that is no answer: progress, a notification, a request of the server.
    pub fn inform(&self, message: Bytes) -> Result<(), PushError> {
        self.outbox.push(Item::notification(message))
    }

    /// One request less to await, with or without an answer; the last one ends the exchange.
    pub fn settle(&self) {
        if self.awaiting.as_ref().is_some_and(|awaiting| awaiting.fetch_sub(1, Ordering::AcqRel) == 1) {
            self.outbox.finish();
        }
    }
}

impl Drop for Exchange {
    /// Nobody is left who could answer: whoever waits is not to wait for ever.
    fn drop(&mut self) {
        if self.awaiting.as_ref().is_none_or(|awaiting| awaiting.load(Ordering::Acquire) > 0) {
            self.outbox.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Budget;

    #[tokio::test]
    async fn nobody_waits_for_an_exchange_that_is_gone() {
        let (outbox, mut cursor) = Outbox::new(Budget { messages: 2, bytes: 1000 });
        let exchange = Exchange::of_request(outbox, 2);
        assert_eq!(exchange.answer("1".into()), Ok(()));
        drop(exchange);
        assert_eq!(cursor.next().await.map(|item| item.message), Some(Bytes::from("1")));
        assert!(cursor.next().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_of_the_gateways_own_comes_though_the_stream_is_full_or_the_stream_ends() {
        let (outbox, mut cursor) = Outbox::new(Budget { messages: 2, bytes: 1000 });
        let stream = Exchange::of_stream(outbox);
        let message = Bytes::from_static(b"{}");
        while stream.inform(message.clone()).is_ok() {}
        assert_eq!(stream.answer_or_cut("1".into()), Ok(()));
        assert_eq!(stream.inform(message.clone()), Err(PushError::Full), "the child has no more room than before");
        for expected in ["{}", "{}", "1"] {
            assert_eq!(cursor.next().await.map(|item| item.message), Some(Bytes::from(expected)));
        }
        for _ in 0..4 {
            assert_eq!(stream.answer_or_cut(message.clone()), Ok(()));
        }
        assert_eq!(stream.answer_or_cut(message), Err(PushError::Full));
        assert!(cursor.next().await.is_none(), "it is cut: a client that reads on would wait for ever");
    }
}
