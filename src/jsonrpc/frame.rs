//! Builds the frames that are sent to a child process: one line each, with a newline at its end. A frame contains only
//! the members that the gateway has understood, each once; other members of a client's envelope do not reach the child.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::envelope::{Envelope, parse};
use super::id::{RawId, decimal};
use super::splice::{Splice, one_line, put_spliced, splice};

/// The frame of a client's request, with `number` in place of the client's id, and with `replacements` made in the
/// params.
pub fn request_frame(number: u64, envelope: &Envelope<'_>, replacements: &mut [Splice<'_>]) -> Bytes {
    let mut digits = [0; 20];
    let mut frame = begin(envelope, replacements);
    frame.put_slice(b",\"id\":");
    frame.put_slice(decimal(number, &mut digits));
    put_call(frame, envelope, replacements)
}

/// The frame of a client's notification, with `replacements` made in the params.
pub fn notification_frame(envelope: &Envelope<'_>, replacements: &mut [Splice<'_>]) -> Bytes {
    let frame = begin(envelope, replacements);
    put_call(frame, envelope, replacements)
}

/// The frame of a client's response, with `id` (raw JSON) in place of its id.
pub fn response_frame(id: &str, envelope: &Envelope<'_>) -> Bytes {
    let (name, outcome) = match (envelope.result, envelope.error) {
        (Some(result), _) => ("result", result),
        (None, error) => ("error", error.unwrap_or("null")),
    };
    let mut frame = BytesMut::with_capacity(outcome.len() + id.len() + 48);
    frame.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    frame.put_slice(id.as_bytes());
    for part in [",\"", name, "\":", outcome, "}"] {
        frame.put_slice(part.as_bytes());
    }
    one_line(frame)
}

/// The frame of a request of the gateway itself. `method` is written without escaping; `params` is raw JSON.
pub fn own_request(number: u64, method: &str, params: &str) -> Bytes {
    let request = format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{params}}}"#);
    one_line(BytesMut::from(request.as_bytes()))
}

fn begin(envelope: &Envelope<'_>, replacements: &[Splice<'_>]) -> BytesMut {
    let method = envelope.method.as_deref().unwrap_or_default().len();
    let grown: usize = replacements.iter().map(|replacement| replacement.new.len()).sum();
    let params = envelope.params.map_or(0, str::len);
    let mut frame = BytesMut::with_capacity(params + method + grown + 80);
    frame.put_slice(b"{\"jsonrpc\":\"2.0\"");
    frame
}

fn put_call(mut frame: BytesMut, envelope: &Envelope<'_>, replacements: &mut [Splice<'_>]) -> Bytes {
    frame.put_slice(b",\"method\":");
    let method = envelope.method.as_deref().unwrap_or_default();
    // A method without escapes is written as received. One with escapes gets as few as possible, for servers that
    // compare bytes.
    match envelope.raw_method.filter(|raw| raw.len() == method.len() + 2) {
        Some(raw) => frame.put_slice(raw.as_bytes()),
        None => frame.put_slice(quoted(method).as_bytes()),
    }
    if let Some(params) = envelope.params {
        frame.put_slice(b",\"params\":");
        put_spliced(&mut frame, params.as_bytes(), replacements);
    }
    frame.put_u8(b'}');
    one_line(frame)
}

/// A copy of a response with `id` in place of its id; an unchanged copy if the response has no id or cannot be read.
pub fn under_id(response: &[u8], id: &RawId) -> Bytes {
    match parse(response).ok().and_then(|envelope| envelope.id) {
        Some(old) => splice(response, &mut [Splice { old, new: id.as_str() }]).freeze(),
        None => Bytes::copy_from_slice(response),
    }
}

/// The text as a JSON string with quotes.
pub fn quoted(text: &str) -> String {
    // Serializing a text cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn of_an_envelope_only_its_four_members_reach_a_child() {
        let text = "{ \"Method\":\"tools/call\",\"ID\":1, \"params\" : {\"a\":\n1e400} ,\"id\": 7 ,\"x\":{},\"method\":\"a\\/b\\u00e9\",\"jsonrpc\":\"2.0\",\"result \":1}";
        let envelope = parse(text.as_bytes()).unwrap();
        let frame = request_frame(42, &envelope, &mut []);
        assert_eq!(frame, "{\"jsonrpc\":\"2.0\",\"id\":42,\"method\":\"a/bé\",\"params\":{\"a\": 1e400}}\n");
        let text = r#"{"jsonrpc":"2.0","method":"notifications/x","Id":3}"#;
        let frame = notification_frame(&parse(text.as_bytes()).unwrap(), &mut []);
        assert_eq!(frame, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n");
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"Result":{},"result":null,"method ":1}"#, r#""result":null"#),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1},"ID":4}"#, r#""error":{"code":1}"#),
        ] {
            let frame = response_frame("\"s\"", &parse(text.as_bytes()).unwrap());
            assert_eq!(frame, format!("{{\"jsonrpc\":\"2.0\",\"id\":\"s\",{expected}}}\n"));
        }
    }
}
