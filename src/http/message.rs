//! Splits the body of a POST into messages: a single message, or a batch where the protocol revision has batches. Invalid
//! bodies are refused.

use std::sync::Arc;

use bytes::Bytes;

use super::headers::Version;
use super::problem::{Refusal, RequestError};
use crate::config::Http;
use crate::jsonrpc::{BatchError, Code, Envelope, Kind, ParseError, RawId, deeper_than, parse, split_batch, text};
use crate::mcp::method;
use crate::mcp::revision::{STATELESS, WITH_BATCHES};
use crate::session::Conversation;
use crate::stream::Exchange;

/// The messages of one body, at least one.
#[derive(Debug)]
pub struct Messages {
    /// The messages, each a slice of the body.
    pub messages: Vec<Bytes>,
    /// Whether the body is a batch.
    pub is_batch: bool,
}

/// One message of a body and its envelope.
#[derive(Debug)]
pub struct Posted<'a> {
    /// The envelope of the message.
    pub envelope: Envelope<'a>,
    /// The error of a request that belongs to a protocol revision that the gateway does not carry.
    pub error: Option<RequestError>,
}

/// Splits a body into messages, each of them valid JSON-RPC.
pub fn read(body: &Bytes, http: &Http) -> Result<Messages, Refusal> {
    let refused = |text: &str| Err(Refusal::form(None, Code::InvalidRequest, text));
    if let Some(deepest) = deeper_than(http.max_depth, body) {
        return refused(&format!(
            "the message is nested {deepest} deep; the limit is {} (http.max_depth)",
            http.max_depth
        ));
    }
    let Some(batch) = split_batch(body, http.max_batch) else {
        return Ok(Messages { messages: vec![body.clone()], is_batch: false });
    };
    let batch = match batch {
        Ok(batch) => batch,
        Err(BatchError::NotJson(error)) => return Err(Refusal::unreadable(&ParseError::NotJson(error))),
        Err(BatchError::TooLong) => {
            let most = http.max_batch;
            return refused(&format!("the batch has more than {most} messages, which is the limit (http.max_batch)"));
        }
    };
    if batch.is_empty() {
        return refused("the batch is empty");
    }
    Ok(Messages { messages: batch.into_iter().map(|text| body.slice_ref(text.as_bytes())).collect(), is_batch: true })
}

impl Messages {
    /// Reads the envelopes of all messages. `version` is the value of the header.
    ///
    /// # Errors
    /// A message is invalid, or the header names a version that the gateway does not carry.
    pub fn envelopes(&self, version: Version<'_>) -> Result<Vec<Posted<'_>>, Refusal> {
        let mut posted = self.messages.iter().map(posted).collect::<Result<Vec<_>, _>>()?;
        if matches!(version, Version::Modern | Version::Unknown) {
            let only = match posted.as_mut_slice() {
                [only] if !self.is_batch => Some(only),
                _ => None,
            };
            let id = only.as_ref().and_then(|only| only.request_id());
            match (version, only, id) {
                // It has its error by what it says itself, or else by what the header says.
                (Version::Modern, Some(only), Some(id)) => {
                    only.error.get_or_insert_with(|| RequestError::modern(&id, false, STATELESS));
                }
                (version, _, id) => return Err(version.refusal(id.as_ref())),
            }
        }
        Ok(posted)
    }
}

impl Posted<'_> {
    /// The id of the message, if the message is a request.
    pub fn request_id(&self) -> Option<RawId> {
        self.envelope.raw_id().filter(|_| self.envelope.kind == Kind::Request)
    }

    /// Whether the message is a request with this method.
    pub fn is_request(&self, method: &str) -> bool {
        self.envelope.kind == Kind::Request && self.envelope.method.as_deref() == Some(method)
    }
}

/// Gives the messages of one body to the conversation. A refused request gets an error response among the answers and does
/// not affect the other messages, which have been sent and must not be sent again. A refused notification or response is
/// counted; if it is the only message, the refusal is returned.
pub fn give(
    conversation: &dyn Conversation,
    messages: &Messages,
    posted: Vec<Posted<'_>>,
    exchange: &Arc<Exchange>,
) -> Option<Refusal> {
    let mut refusal = None;
    for (message, posted) in messages.messages.iter().zip(posted) {
        if let Some(error) = posted.error {
            conversation.answer(exchange, error.response());
        } else if messages.is_batch
            && posted.is_request(method::INITIALIZE)
            && let Some(id) = posted.request_id()
        {
            // 2025-03-26, "Lifecycle".
            conversation.answer(exchange, RequestError::invalid(&id, "initialize must not be in a batch").response());
        } else if let Err(reason) = conversation.give(message, &posted.envelope, exchange)
            && !messages.is_batch
            && posted.envelope.kind != Kind::Request
        {
            refusal = Some(Refusal::busy(reason));
        }
    }
    refusal
}

/// Reads the envelope of one message, or refuses the body.
fn posted(message: &Bytes) -> Result<Posted<'_>, Refusal> {
    let envelope = parse(message).map_err(|error| Refusal::unreadable(&error))?;
    let mut posted = Posted { envelope, error: None };
    // A client that speaks the stateless revision says so in every request: it is told to fall back (2026-07-28,
    // "Versioning").
    if posted.envelope.kind == Kind::Request
        && let Some(version) = posted.envelope.members.meta.protocol_version
        && let Some(id) = posted.request_id()
    {
        // One that is no string is no version.
        let version: String = text(version).as_deref().unwrap_or(STATELESS).chars().take(32).collect();
        posted.error = Some(RequestError::modern(&id, posted.is_request(method::SERVER_DISCOVER), &version));
    }
    Ok(posted)
}

/// Checks that `version` is the only revision with batches (MCP 2025-03-26, "Batching").
pub fn check_batch(version: Option<&str>) -> Result<(), Refusal> {
    if version.is_some_and(|version| version != WITH_BATCHES) {
        let text = "batches are for protocol version 2025-03-26: send one message at a time";
        return Err(Refusal::form(None, Code::InvalidRequest, text));
    }
    Ok(())
}
