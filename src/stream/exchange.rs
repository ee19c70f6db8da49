//! Where the answers to a request go: the unit that a reply is routed to.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::outbox::{Item, Outbox, PushError};

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
        self.outbox.push(Item { message, answer: true })?;
        self.settle();
        Ok(())
    }

    /// Delivers something that is no answer: progress, a notification, a request of the server.
    pub fn inform(&self, message: Bytes) -> Result<(), PushError> {
        self.outbox.push(Item { message, answer: false })
    }

    /// One request less to await, with or without an answer; the last one ends the exchange.
    pub fn settle(&self) {
        if self.awaiting.as_ref().is_some_and(|awaiting| awaiting.fetch_sub(1, Ordering::AcqRel) == 1) {
            self.outbox.finish();
        }
    }
}
