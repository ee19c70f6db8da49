//! Encodes Server-Sent Events (HTML standard, section 9.2). A message is a single line, so each event has one `data`
//! field.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

/// A comment event that clients ignore. It keeps proxies and idle timers from closing the connection.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// What stands before a message in its event.
pub(super) const PREFIX: &[u8] = b"event: message\ndata: ";
/// What stands behind a message in its event.
pub(super) const SUFFIX: &[u8] = b"\n\n";

/// Appends `message` to `out` as one event. `message` must not contain line breaks.
pub fn encode_message(out: &mut BytesMut, message: &[u8]) {
    out.reserve(PREFIX.len() + message.len() + SUFFIX.len());
    out.put_slice(PREFIX);
    out.put_slice(message);
    out.put_slice(SUFFIX);
}

/// The first event of the HTTP+SSE transport (MCP 2024-11-05). It holds the URI that the client sends its POST requests
/// to.
pub fn endpoint_event(uri: &str) -> Bytes {
    format!("event: endpoint\ndata: {uri}\n\n").into()
}

/// A `retry` field: the client should wait for `after` before it reconnects.
pub fn retry_field(after: Duration) -> Bytes {
    format!("retry: {}\n\n", after.as_millis()).into()
}
