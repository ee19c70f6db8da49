//! From a body to messages: one, or a batch where the revision has them. What is no message gets the error that says so.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::headers::{MODERN, VERSIONS, WITH_BATCHES};
use super::problem::{Reply, json as json_reply, refused, rpc_error};
use crate::config::Http;
use crate::jsonrpc::{Code, Envelope, Kind, ParseError, RawId, depth, error_response_with_data, parse, split_batch};
use crate::session::{Received, Session};
use crate::stream::Exchange;

/// The messages of one body. Never empty.
#[derive(Debug)]
pub struct Messages {
    /// Each message, a slice of the body.
    pub messages: Vec<Bytes>,
    /// Whether they came as a batch.
    pub is_batch: bool,
}

/// Cuts a body into messages, each of them valid JSON-RPC.
pub fn read(body: &Bytes, http: &Http) -> Result<Messages, Reply> {
    let deepest = depth(body);
    if deepest > http.max_depth {
        let text = format!("the message is nested {deepest} deep; the limit is {} (http.max_depth)", http.max_depth);
        return Err(rpc_error(StatusCode::BAD_REQUEST, None, Code::InvalidRequest, &text));
    }
    let Some(batch) = split_batch(body) else {
        return Ok(Messages { messages: vec![body.clone()], is_batch: false });
    };
    let batch = batch.map_err(|error| invalid(&error))?;
    if batch.is_empty() {
        return Err(rpc_error(StatusCode::BAD_REQUEST, None, Code::InvalidRequest, "the batch is empty"));
    }
    if batch.len() > http.max_batch {
        let text = format!("the batch has {} messages; the limit is {} (http.max_batch)", batch.len(), http.max_batch);
        return Err(rpc_error(StatusCode::BAD_REQUEST, None, Code::InvalidRequest, &text));
    }
    Ok(Messages { messages: batch.into_iter().map(|text| body.slice_ref(text.as_bytes())).collect(), is_batch: true })
}

/// Gives the messages of one body to the session. What the server does not take of a batch is refused by itself: the others
/// are on their way, and must not come again.
pub fn give(
    session: &Session,
    messages: &Messages,
    envelopes: &[Envelope<'_>],
    exchange: &Arc<Exchange>,
) -> Result<(), Reply> {
    for (message, envelope) in messages.messages.iter().zip(envelopes) {
        match session.receive(message.clone(), envelope, exchange) {
            Received::Accepted => {}
            Received::Refused(reason) if messages.is_batch => session.refuse(envelope, reason, exchange),
            Received::Refused(reason) => return Err(refused(envelope.raw_id().as_ref(), reason)),
        }
    }
    Ok(())
}

/// Reads the envelope of a message, or makes the error response.
pub fn envelope(message: &Bytes) -> Result<Envelope<'_>, Reply> {
    let envelope = parse(message).map_err(|error| invalid(&error))?;
    // A client that speaks the stateless revision says so in every request: it is told to fall back (2026-07-28,
    // "Versioning").
    if envelope.kind == Kind::Request
        && let Some(params) = envelope.params
        && memchr::memmem::find(params.as_bytes(), b"io.modelcontextprotocol/protocolVersion").is_some()
        && let Some(version) = modern_version(params)
    {
        // The probe itself is an unknown method here, as it is to any server of the older revisions: rmcp takes an
        // unsupported version as the word of a server that is modern, and gives up.
        let probe = envelope.method.as_deref() == Some("server/discover");
        let code = if probe { Code::MethodNotFound } else { Code::UnsupportedVersion };
        return Err(modern_refused(envelope.raw_id().as_ref(), code, &version));
    }
    Ok(envelope)
}

fn modern_version(params: &str) -> Option<String> {
    let params: serde_json::Value = serde_json::from_str(params).ok()?;
    let version = params.get("_meta")?.get("io.modelcontextprotocol/protocolVersion")?;
    Some(version.as_str().unwrap_or(MODERN).chars().take(32).collect())
}

/// The answer to a client of a revision that is not carried here: which ones are.
pub fn modern_refused(id: Option<&RawId>, code: Code, requested: &str) -> Reply {
    let data = json!({ "supported": VERSIONS, "requested": requested });
    let text = "unsupported protocol version: this endpoint speaks the revisions with initialize";
    json_reply(StatusCode::BAD_REQUEST, error_response_with_data(id, code, text, &data))
}

fn invalid(error: &ParseError) -> Reply {
    match error {
        ParseError::NotJson(_) => rpc_error(StatusCode::BAD_REQUEST, None, Code::Parse, &error.to_string()),
        ParseError::Invalid { id, .. } => {
            rpc_error(StatusCode::BAD_REQUEST, id.as_ref(), Code::InvalidRequest, &error.to_string())
        }
    }
}

/// Batches are for the one revision that has them (2025-03-26, "Batching"), and never hold `initialize`.
pub fn check_batch(version: Option<&str>, envelopes: &[Envelope<'_>]) -> Result<(), Reply> {
    let refuse = |text: &str| Err(rpc_error(StatusCode::BAD_REQUEST, None, Code::InvalidRequest, text));
    if version.is_some_and(|version| version != WITH_BATCHES) {
        return refuse("batches are for protocol version 2025-03-26: send one message at a time");
    }
    if envelopes.iter().any(|envelope| envelope.method.as_deref() == Some("initialize")) {
        return refuse("initialize must not be in a batch");
    }
    Ok(())
}
