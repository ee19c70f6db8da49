//! What the client said at the beginning: kept, so that a child that is started again hears the same.

use bytes::Bytes;
use serde::Deserialize;

use crate::jsonrpc::parse;

/// Where the handshake of a session stands.
#[derive(Debug, Clone, Default)]
pub(super) enum Handshake {
    /// The client has not sent `initialize`.
    #[default]
    None,
    /// `initialize` is in flight.
    Initializing,
    /// `initialize` was answered.
    Done(Done),
}

/// A handshake that can be replayed.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// The client's `initialize` request, as it came.
    pub(super) initialize: Bytes,
    /// The client's `notifications/initialized`, if it has come.
    pub(super) initialized: Option<Bytes>,
    /// What was negotiated.
    pub(super) version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
}

/// The `protocolVersion` in the answer to `initialize`; `None` if it is an error or has none.
pub fn protocol_version(answer: &[u8]) -> Option<String> {
    let result: InitializeResult = serde_json::from_str(parse(answer).ok()?.result?).ok()?;
    Some(result.protocol_version)
}
