//! The destination of the answers to one HTTP request. Every call holds the exchange that its answer is delivered to.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::item::Item;
use super::log::PushError;
use super::outbox::Outbox;
use crate::memory::Account;

/// The unread bytes of a stream, for each request in a body, up to which answers of the gateway's own are not charged:
/// whoever holds the request or the session is charged for as much.
const FREE: usize = 1024;
/// The same for a stream, and for a body of few requests.
const LEAST_FREE: usize = 4 * FREE;

/// The answers of one HTTP request, or of the single stream of an HTTP+SSE session.
#[derive(Debug)]
pub struct Exchange {
    outbox: Outbox,
    /// The account of the client, for what waits to be read.
    account: Account,
    /// The unread bytes up to which answers of the gateway's own are not charged.
    free: usize,
    /// The number of requests without an answer. `None` for the stream of a session, which does not end with the last
    /// answer.
    awaiting: Option<AtomicUsize>,
}

impl Exchange {
    /// The exchange of one HTTP request that contains `requests` JSON-RPC requests. The stream ends with the last
    /// answer. What waits for the client is charged to `account`.
    pub fn of_request(outbox: Outbox, requests: usize, account: &Account) -> Self {
        let free = LEAST_FREE.max(FREE.saturating_mul(requests));
        Self { outbox, account: account.clone(), free, awaiting: Some(AtomicUsize::new(requests)) }
    }

    /// The exchange of a session's stream. The last answer does not end the stream. What waits for the client is
    /// charged to `account`.
    pub fn of_stream(outbox: Outbox, account: &Account) -> Self {
        Self { outbox, account: account.clone(), free: LEAST_FREE, awaiting: None }
    }

    /// The account of the client.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The stream that carries the answers.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Appends an answer of the server, which is charged already, and counts one request as settled.
    ///
    /// # Errors
    /// The stream does not take the answer. Then the request is not settled, and the answer comes back: after
    /// [`PushError::Full`] the caller may try again.
    pub fn answer(&self, message: Bytes) -> Result<(), (PushError, Bytes)> {
        let item = Item { message, answer: true, request: None };
        self.outbox.offer(item).map_err(|(error, item)| (error, item.message))?;
        self.settle();
        Ok(())
    }

    /// Appends an answer that the gateway itself made, without waiting for room. If even the second budget of the
    /// stream is full, or the account has no room for what the client does not read, the stream is cut, because its
    /// client would wait for the answer forever. The request is settled in every case.
    ///
    /// # Errors
    /// The answer was not delivered, because the stream was full or had ended.
    pub fn answer_or_cut(&self, message: Bytes) -> Result<(), PushError> {
        let len = message.len();
        let message = match self.outbox.unread() + len <= self.free {
            true => Ok(message),
            false => self.account.hold(message, len),
        };
        let push = |message| self.outbox.push_own(Item { message, answer: true, request: None });
        let pushed = message.map_err(|_| PushError::Full).and_then(push);
        if pushed == Err(PushError::Full) {
            self.outbox.cut();
        }
        self.settle();
        pushed
    }

    /// Appends a notification, which is charged already.
    ///
    /// # Errors
    /// The unread messages use up the budget, or the stream has ended.
    pub fn inform(&self, message: Bytes) -> Result<(), PushError> {
        self.outbox.push(Item::notification(message))
    }

    /// Counts one request as settled, answered or not. The last settled request ends the stream. Without effect on the
    /// exchange of a session's stream.
    pub fn settle(&self) {
        if self.awaiting.as_ref().is_some_and(|awaiting| awaiting.fetch_sub(1, Ordering::AcqRel) == 1) {
            self.outbox.finish();
        }
    }
}

impl Drop for Exchange {
    /// Ends the stream of a session, and that of an HTTP request with unsettled requests: no holder is left that could
    /// answer, and the client would wait forever.
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
        let exchange = Exchange::of_request(outbox, 2, &Account::unlimited());
        assert_eq!(exchange.answer("1".into()), Ok(()));
        drop(exchange);
        assert_eq!(cursor.next().await.map(|item| item.message), Some(Bytes::from("1")));
        assert!(cursor.next().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_of_the_gateways_own_comes_though_the_stream_is_full_or_the_stream_ends() {
        let (outbox, mut cursor) = Outbox::new(Budget { messages: 2, bytes: 1000 });
        let stream = Exchange::of_stream(outbox, &Account::unlimited());
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
