//! Server-Sent Events as bytes (HTML standard, section 9.2). Messages are single lines, so one `data` field holds each.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

/// A comment that keeps proxies and idle timers content.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

const PREFIX: &[u8] = b"event: message\ndata: ";
const SUFFIX: &[u8] = b"\n\n";

/// Appends a message as an event. `message` has no line breaks.
pub fn encode_message(out: &mut BytesMut, message: &[u8]) {
    out.reserve(PREFIX.len() + message.len() + SUFFIX.len());
    out.put_slice(PREFIX);
    out.put_slice(message);
    out.put_slice(SUFFIX);
}

/// The first event of the HTTP+SSE transport (MCP 2024-11-05): where to POST to.
pub fn endpoint_event(uri: &str) -> Bytes {
    format!("event: endpoint\ndata: {uri}\n\n").into()
}

/// Tells the client when to come back after the stream has ended.
pub fn retry_field(after: Duration) -> Bytes {
    format!("retry: {}\n\n", after.as_millis()).into()
}
