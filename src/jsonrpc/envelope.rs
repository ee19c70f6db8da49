//! Reads the envelope of a JSON-RPC message and leaves everything else as the bytes it came in.
//!
//! `params`, `result` and `error` are checked to be JSON, not decoded: an unknown method passes as it is.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::id::RawId;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has an id and a result or an error.
    Response,
}

/// The envelope of one message, borrowed from its bytes.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// What the message is.
    pub kind: Kind,
    /// The raw id. `None` for notifications, and for responses to a message that could not be read.
    pub id: Option<&'a str>,
    /// The method of a request or notification.
    pub method: Option<Cow<'a, str>>,
    /// The raw params.
    pub params: Option<&'a str>,
    /// The raw result of a response.
    pub result: Option<&'a str>,
    /// Whether a response carries an error.
    pub is_error: bool,
}

impl Envelope<'_> {
    /// The id, owned.
    pub fn raw_id(&self) -> Option<RawId> {
        self.id.and_then(RawId::new)
    }
}

/// Why bytes are not a JSON-RPC message.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, or not UTF-8.
    #[error("the message is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// JSON, but not a JSON-RPC 2.0 message. Carries the id, where one could be read.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: &'static str,
        /// The id of the message, to answer under.
        id: Option<RawId>,
    },
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Text<'a>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `Option<&RawValue>` alone would take an explicit `null` for an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the envelope of one message (JSON-RPC 2.0 sections 4 and 5, with MCP's rule that an id is never null).
pub fn parse(message: &[u8]) -> Result<Envelope<'_>, ParseError> {
    let fields: Fields<'_> = serde_json::from_slice(message).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ParseError::Invalid {
            reason: "the message is not a JSON-RPC object, or a member has the wrong type",
            id: None,
        },
        _ => ParseError::NotJson(error),
    })?;
    // An array would pass as well, its elements taken for the members in their order.
    if message.trim_ascii_start().first() != Some(&b'{') {
        return Err(ParseError::Invalid { reason: "the message is not a JSON-RPC object", id: None });
    }
    let raw_id = fields.id.map(RawValue::get);
    let id = raw_id.and_then(RawId::new);
    let invalid = |reason| Err(ParseError::Invalid { reason, id: id.clone() });
    if fields.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
        return invalid("the message has no \"jsonrpc\": \"2.0\"");
    }
    let kind = match (&fields.method, raw_id) {
        (Some(_), _) if fields.result.is_some() || fields.error.is_some() => {
            return invalid("a message has either a method, or a result or error");
        }
        (Some(_), None) => Kind::Notification,
        (Some(_), Some(_)) if id.is_none() => return invalid("the id must be a string or a number, and not null"),
        (Some(_), Some(_)) => Kind::Request,
        (None, _) if fields.result.is_some() == fields.error.is_some() => {
            return invalid("the message has no method, and not exactly one of result and error");
        }
        (None, Some(_)) => Kind::Response,
        (None, None) if fields.error.is_some() => Kind::Response,
        (None, None) => return invalid("a result needs the id of its request"),
    };
    let params = fields.params.map(RawValue::get);
    if params.is_some_and(|p| !p.starts_with(['{', '['])) {
        return invalid("params must be an object or an array");
    }
    Ok(Envelope {
        kind,
        id: raw_id.filter(|_| id.is_some()),
        method: fields.method.map(|text| text.0),
        params,
        result: fields.result.map(RawValue::get),
        is_error: fields.error.is_some(),
    })
}

/// Cuts a batch (a JSON array) into its messages; `None` if the bytes are no array.
pub fn split_batch(message: &[u8]) -> Option<Result<Vec<&str>, ParseError>> {
    let first = message.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        return None;
    }
    let items: Result<Vec<&RawValue>, _> = serde_json::from_slice(message);
    Some(items.map(|items| items.into_iter().map(RawValue::get).collect()).map_err(ParseError::NotJson))
}

/// The deepest nesting of arrays and objects, in one pass and without recursion.
pub fn depth(message: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for &byte in message {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        for (text, kind) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request),
            (r#"{"jsonrpc":"2.0","id":"a","method":"x/unknown","params":{"deep":[1e400]}}"#, Kind::Request),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Kind::Notification),
            (r#"{"jsonrpc":"2.0","id":1.0,"result":null}"#, Kind::Response),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}"#, Kind::Response),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().kind, kind, "{text}");
        }
    }

    #[test]
    fn ids_keep_their_bytes() {
        for id in ["1", "1.0", "1e2", "\"1\"", "\"\\u0041\"", "123456789012345678901234567890", "-0"] {
            let text = format!(r#"{{"jsonrpc":"2.0", "id" : {id} ,"method":"ping"}}"#);
            assert_eq!(parse(text.as_bytes()).unwrap().id, Some(id));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#,
            r#"{"jsonrpc":"2.0","result":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#,
            r#"["2.0",1,"ping"]"#,
            "7",
            "\"text\"",
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(ParseError::Invalid { .. })), "{text}");
        }
        for text in ["", "{", "{\"jsonrpc\":\"2.0\",}", "\u{feff}{}", "{} {}"] {
            assert!(matches!(parse(text.as_bytes()), Err(ParseError::NotJson(_))), "{text}");
        }
        assert!(parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}").is_err());
    }

    #[test]
    fn deep_json_is_measured_not_recursed() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(depth(deep.as_bytes()), 200_000);
        assert_eq!(depth(br#"{"a":"[[[[\"[["}"#), 1);
        let message = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":{deep}}}}}"#);
        assert_eq!(parse(message.as_bytes()).unwrap().kind, Kind::Request);
    }

    #[test]
    fn batches_are_cut() {
        assert!(split_batch(b"{}").is_none());
        assert_eq!(split_batch(b" [ {\"a\":1} , 2 ]").unwrap().unwrap(), ["{\"a\":1}", "2"]);
        assert!(split_batch(b"[1,").unwrap().is_err());
    }
}
