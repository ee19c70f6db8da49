//! Splits the body of a POST into messages: a single message, or a batch where the protocol revision has batches. Invalid
//! bodies are refused.

use std::sync::Arc;

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
pub struct Messages<'a> {
    /// The messages in the order of the body.
    pub posted: Vec<Posted<'a>>,
    /// Whether the body is a batch.
    pub is_batch: bool,
}

/// One message of a body and its envelope.
#[derive(Debug)]
pub struct Posted<'a> {
    /// The message, a slice of the body.
    pub message: &'a [u8],
    /// The envelope of the message.
    pub envelope: Envelope<'a>,
    /// The error of a request that belongs to a protocol revision that the gateway does not carry.
    pub error: Option<RequestError>,
}

/// Splits a body into messages and reads their envelopes, or refuses the body because one message is not valid JSON-RPC.
pub fn read<'a>(body: &'a [u8], http: &Http) -> Result<Messages<'a>, Refusal> {
    let refused = |text: &str| Err(Refusal::form(None, Code::InvalidRequest, text));
    if let Some(deepest) = deeper_than(http.max_depth, body) {
        return refused(&format!(
            "the message is nested {deepest} deep; the limit is {} (http.max_depth)",
            http.max_depth
        ));
    }
    let Some(batch) = split_batch(body, http.max_batch) else {
        return Ok(Messages { posted: vec![Posted::read(body)?], is_batch: false });
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
    let posted = batch.into_iter().map(|message| Posted::read(message.as_bytes())).collect::<Result<_, _>>()?;
    Ok(Messages { posted, is_batch: true })
}

impl<'a> Messages<'a> {
    /// The message of a body that is no batch.
    pub fn only(&mut self) -> Option<&mut Posted<'a>> {
        self.posted.first_mut().filter(|_| !self.is_batch)
    }

    /// The number of requests.
    pub fn requests(&self) -> usize {
        self.posted.iter().filter(|posted| posted.envelope.kind == Kind::Request).count()
    }

    /// Checks the value of the header `MCP-Protocol-Version`. A single request of the stateless revision gets its error.
    ///
    /// # Errors
    /// The header names a version that the gateway does not carry, and the body is not a single request of the stateless
    /// revision.
    pub fn check_version(&mut self, version: Version<'_>) -> Result<(), Refusal> {
        if !matches!(version, Version::Modern | Version::Unknown) {
            return Ok(());
        }
        let only = self.only();
        let id = only.as_ref().and_then(|only| only.request_id());
        match (version, only, id) {
            // It has its error by what it says itself, or else by what the header says.
            (Version::Modern, Some(only), Some(id)) => {
                only.error.get_or_insert_with(|| RequestError::modern(&id, false, STATELESS));
                Ok(())
            }
            (version, _, id) => Err(version.refusal(id.as_ref())),
        }
    }
}

impl<'a> Posted<'a> {
    /// Reads the envelope of one message, or refuses the body.
    fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let envelope = parse(message).map_err(|error| Refusal::unreadable(&error))?;
        let mut posted = Self { message, envelope, error: None };
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
pub fn give(conversation: &dyn Conversation, messages: Messages<'_>, exchange: &Arc<Exchange>) -> Option<Refusal> {
    let mut refusal = None;
    for posted in messages.posted {
        if let Some(error) = posted.error {
            conversation.answer(exchange, error.response());
        } else if messages.is_batch
            && posted.is_request(method::INITIALIZE)
            && let Some(id) = posted.request_id()
        {
            // 2025-03-26, "Lifecycle".
            conversation.answer(exchange, RequestError::invalid(&id, "initialize must not be in a batch").response());
        } else if let Err(reason) = conversation.give(posted.message, &posted.envelope, exchange)
            && !messages.is_batch
            && posted.envelope.kind != Kind::Request
        {
            refusal = Some(Refusal::busy(reason));
        }
    }
    refusal
}

/// Checks that `version` is the only revision with batches (MCP 2025-03-26, "Batching").
pub fn check_batch(version: Option<&str>) -> Result<(), Refusal> {
    if version.is_some_and(|version| version != WITH_BATCHES) {
        let text = "batches are for protocol version 2025-03-26: send one message at a time";
        return Err(Refusal::form(None, Code::InvalidRequest, text));
    }
    Ok(())
}
