//! Splits the body of a POST into messages: a single message, or a batch where the protocol revision has batches.
//! Invalid bodies are refused.

use std::sync::Arc;

use super::caller::Caller;
use super::headers::Unsupported;
use super::problem::{Refusal, RequestError};
use crate::config::Http;
use crate::heavy;
use crate::jsonrpc::{BatchError, Envelope, Kind, ParseError, RawId, deeper_than, parse, split_batch, text};
use crate::mcp::method;
use crate::mcp::revision::{STATELESS, WITH_BATCHES};
use crate::memory::{Charge, Exhausted};
use crate::session::Conversation;
use crate::stream::Exchange;
use crate::telemetry::{MemoryUse, Metrics};
use crate::worker::Refused;

/// The messages of one body, at least one.
pub struct Messages<'a> {
    /// The messages in the order of the body.
    pub posted: Vec<Posted<'a>>,
    /// Whether the body is a batch.
    pub is_batch: bool,
    /// What reading a large body takes beside it: names and values with escapes are copied. `None` for a small body.
    _reading: Option<Charge>,
}

/// One message of a body and its envelope.
pub struct Posted<'a> {
    /// The message, a slice of the body.
    pub message: &'a [u8],
    /// The envelope of the message.
    pub envelope: Envelope<'a>,
    /// The error of a request of the stateless revision, which the gateway does not carry. `None` for other messages.
    pub error: Option<RequestError>,
}

/// Splits a body of the caller into messages and reads their envelopes. A large body waits for a turn, see
/// [`heavy`](crate::heavy), and its size is charged once more to the tenant as long as the messages exist. Refuses the
/// whole body if one message is not valid JSON-RPC, if a batch is empty, above `http.max_depth` or `http.max_batch`, or
/// if the tenant has no memory for it.
pub async fn read<'a>(body: &'a [u8], caller: &Caller<'_>, metrics: &Metrics) -> Result<Messages<'a>, Refusal> {
    let http = &caller.snapshot.http;
    if body.len() <= heavy::LIGHT {
        return split(body, http, None);
    }
    let turn = heavy::BODIES.turn(caller.principal.tenant(), body.len()).await;
    let never = 2 * body.len() > caller.account.most();
    let reading = if never { Err(Exhausted::TooLarge) } else { caller.account.charge(body.len()) };
    let reading = reading.map_err(|why| {
        metrics.memory_refused(MemoryUse::Body);
        Refusal::no_memory("reading the body", why)
    })?;
    turn.run(|| split(body, http, Some(reading)))
}

fn split<'a>(body: &'a [u8], http: &Http, _reading: Option<Charge>) -> Result<Messages<'a>, Refusal> {
    let refused = |text: &str| Err(Refusal::invalid(None, text));
    if let Some(deepest) = deeper_than(http.max_depth, body) {
        return refused(&format!(
            "the message is nested {deepest} deep; the limit is {} (http.max_depth)",
            http.max_depth
        ));
    }
    let Some(batch) = split_batch(body, http.max_batch) else {
        return Ok(Messages { posted: vec![Posted::read(body)?], is_batch: false, _reading });
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
    Ok(Messages { posted, is_batch: true, _reading })
}

impl<'a> Messages<'a> {
    /// The message of a body that is a single message. `None` for a batch.
    pub fn only(&mut self) -> Option<&mut Posted<'a>> {
        self.posted.first_mut().filter(|_| !self.is_batch)
    }

    /// The number of requests.
    pub fn requests(&self) -> usize {
        self.posted.iter().filter(|posted| posted.envelope.kind == Kind::Request).count()
    }

    /// Returns the `version` that the header `MCP-Protocol-Version` names, if the gateway carries that version. If the
    /// header names the stateless revision and the body is a single request, the request gets its error and the result
    /// is `None`.
    ///
    /// # Errors
    /// Every other version that the gateway does not carry.
    pub fn check_version<'v>(
        &mut self,
        version: Result<Option<&'v str>, Unsupported>,
    ) -> Result<Option<&'v str>, Refusal> {
        version.or_else(|unsupported| {
            let only = self.only();
            let id = only.as_ref().and_then(|only| only.request_id());
            match (unsupported, only, id) {
                // The request itself may have named a version already.
                (Unsupported::Stateless, Some(only), Some(id)) => {
                    only.error.get_or_insert_with(|| RequestError::stateless(&id, false, STATELESS));
                    Ok(None)
                }
                (unsupported, _, id) => Err(unsupported.refusal(id.as_ref())),
            }
        })
    }
}

impl<'a> Posted<'a> {
    /// Reads the envelope of one message, or refuses the body. A request that names a protocol version in its `_meta`
    /// is of the stateless revision, and gets an error.
    fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let envelope = parse(message).map_err(|error| Refusal::unreadable(&error))?;
        let mut posted = Self { message, envelope, error: None };
        // The error tells a client of the stateless revision to fall back (2026-07-28, "Versioning").
        if posted.envelope.kind == Kind::Request
            && let Some(version) = posted.envelope.members.meta.protocol_version
            && let Some(id) = posted.request_id()
        {
            // A value that is no string names no version.
            let version: String = text(version).as_deref().unwrap_or(STATELESS).chars().take(32).collect();
            posted.error = Some(RequestError::stateless(&id, posted.is_request(method::SERVER_DISCOVER), &version));
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

/// Gives the messages of one body to the conversation. A request that is refused gets its error response on the
/// `exchange`, and the other messages are given all the same. The refusal of a notification or response is returned if
/// the message is the whole body; in a batch the refusal has no effect.
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
            refusal = Some(match reason {
                // Another session of the principal has taken the place between the look-up and now.
                Refused::SessionEnded => Refusal::no_session(None),
                reason => Refusal::busy(reason),
            });
        }
    }
    refusal
}

/// Checks that a batch is allowed: `version` is the only revision with batches, or is not known yet (MCP 2025-03-26,
/// "Batching").
pub fn check_batch(version: Option<&str>) -> Result<(), Refusal> {
    if version.is_some_and(|version| version != WITH_BATCHES) {
        let text = "batches are for protocol version 2025-03-26: send one message at a time";
        return Err(Refusal::invalid(None, text));
    }
    Ok(())
}
