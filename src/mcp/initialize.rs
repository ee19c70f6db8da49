//! `initialize` and `notifications/initialized`: what a client asks for, and which version a server answers with.

use std::borrow::Cow;

use crate::jsonrpc::{parse, text};

/// The line with which a client says that the answer to `initialize` has arrived.
pub const INITIALIZED: &[u8] = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";

/// What the params of a client's `initialize` ask for, raw. `null` for what is absent.
#[derive(Debug, Clone, Copy)]
pub struct Initialize<'a> {
    /// `protocolVersion`.
    pub version: &'a str,
    /// `capabilities`.
    pub capabilities: &'a str,
}

impl<'a> Initialize<'a> {
    /// Reads a client's `initialize`. Both fields are `null` if the message cannot be parsed.
    pub fn read(message: &'a [u8]) -> Self {
        let members = parse(message).map(|envelope| envelope.members).unwrap_or_default();
        Self {
            version: members.protocol_version.unwrap_or("null"),
            capabilities: members.capabilities.unwrap_or("null"),
        }
    }
}

/// The `protocolVersion` in the answer to `initialize`; `None` if it is an error or has none.
pub fn protocol_version(answer: &[u8]) -> Option<String> {
    let envelope = parse(answer).ok().filter(|envelope| envelope.result.is_some())?;
    text(envelope.members.protocol_version?).map(Cow::into_owned)
}
