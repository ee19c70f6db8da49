//! Builds the frames that are sent to a child process: one line each, with a newline at its end. A frame contains only
//! the members that the gateway has understood, each once; other members of a client's envelope do not reach the child.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::envelope::{Envelope, parse};
use super::id::{RawId, decimal};
use super::splice::{Splice, one_line, own_frame, put_spliced, splice, spliced_len};

const START: &[u8] = b"{\"jsonrpc\":\"2.0\"";
const ID: &[u8] = b",\"id\":";
const METHOD: &[u8] = b",\"method\":";
const PARAMS: &[u8] = b",\"params\":";

/// The frame of a client's request, with `number` in place of the client's id, and with `replacements` made in the
/// params.
pub fn request_frame(number: u64, envelope: &Envelope<'_>, replacements: &mut [Splice<'_>]) -> BytesMut {
    let mut digits = [0; 20];
    call_frame(Some(decimal(number, &mut digits)), envelope, replacements)
}

/// The frame of a client's notification, with `replacements` made in the params.
pub fn notification_frame(envelope: &Envelope<'_>, replacements: &mut [Splice<'_>]) -> BytesMut {
    call_frame(None, envelope, replacements)
}

/// The frame of a client's response, with `id` (raw JSON) in place of its id.
pub fn response_frame(id: &str, envelope: &Envelope<'_>) -> BytesMut {
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
    own_frame(request.as_bytes())
}

fn call_frame(id: Option<&[u8]>, envelope: &Envelope<'_>, replacements: &mut [Splice<'_>]) -> BytesMut {
    let method = envelope.method.as_deref().unwrap_or_default();
    // A method without escapes is written as received. One with escapes gets as few as possible, for servers that
    // compare bytes.
    let method = match envelope.raw_method.filter(|raw| raw.len() == method.len() + 2) {
        Some(raw) => Cow::Borrowed(raw),
        None => Cow::Owned(quoted(method)),
    };
    let params = envelope.params.map(str::as_bytes);
    let id_len = id.map_or(0, |id| ID.len() + id.len());
    let params_len = params.map_or(0, |params| PARAMS.len() + spliced_len(params, replacements));
    let mut frame = BytesMut::with_capacity(START.len() + id_len + METHOD.len() + method.len() + params_len + 2);
    frame.put_slice(START);
    for part in id.map(|id| [ID, id]).into_iter().flatten().chain([METHOD, method.as_bytes()]) {
        frame.put_slice(part);
    }
    if let Some(params) = params {
        frame.put_slice(PARAMS);
        put_spliced(&mut frame, params, replacements);
    }
    frame.put_u8(b'}');
    one_line(frame)
}

/// A copy of a response with `id` in place of its id; an unchanged copy if the response has no id or cannot be read.
pub fn under_id(response: &[u8], id: &RawId) -> BytesMut {
    match parse(response).ok().and_then(|envelope| envelope.id) {
        Some(old) => splice(response, &mut [Splice { old, new: id.as_str() }]),
        None => BytesMut::from(response),
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
