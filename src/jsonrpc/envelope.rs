//! Reads the envelope of a JSON-RPC message and leaves the rest as raw bytes.
//!
//! `params`, `result` and `error` are checked to be JSON and not decoded, so messages with unknown methods pass
//! unchanged.

use std::borrow::Cow;

use super::id::RawId;
use super::members::is_id;
use super::read_members::ReadMembers;
use super::scan::{Malformed, Scanner, batch, member};
use super::string::{text, unquoted};

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message with a method and an id.
    Request,
    /// A message with a method and without an id.
    Notification,
    /// A message with a result or an error, and without a method.
    Response,
}

/// The envelope of one message. Raw values are slices of the message, as its sender wrote them.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The kind of the message.
    pub kind: Kind,
    /// The raw id, a string or a number. `None` for notifications, and for error responses without an id or with
    /// another value in its place.
    pub id: Option<&'a str>,
    /// The decoded method. `None` for responses.
    pub method: Option<Cow<'a, str>>,
    /// The raw method with its quotes. `None`, or `null`, for responses.
    pub(super) raw_method: Option<&'a str>,
    /// The raw params, an array or an object. `None` if the params are missing or `null`.
    pub params: Option<&'a str>,
    /// The raw result of a response, which may be `null`. `None` for error responses.
    pub result: Option<&'a str>,
    /// The raw error of a response. `None` if the error is missing or `null`.
    pub error: Option<&'a str>,
    /// Whether a response carries an error.
    pub is_error: bool,
    /// The members of `params`, or of `result`, that routing reads. Empty if the value is not an object.
    pub members: ReadMembers<'a>,
}

impl Envelope<'_> {
    /// An owned copy of the id.
    pub fn raw_id(&self) -> Option<RawId> {
        self.id.and_then(RawId::new)
    }

    /// The code of the error of a response. `None` without an error, or if the code is not an integer.
    pub fn error_code(&self) -> Option<i64> {
        member(self.error?, "code")?.parse().ok()
    }
}

/// The reason why bytes are not a JSON-RPC message.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The bytes are not UTF-8 or not JSON, or the method contains an unpaired surrogate.
    #[error("the message is not JSON: {0}")]
    NotJson(Malformed),
    /// The bytes are JSON, but not a JSON-RPC 2.0 message.
    #[error("{reason}")]
    Invalid {
        /// The rule that the message breaks.
        reason: &'static str,
        /// The id of the message, for the error response. `None` if the id is missing, not a string or number, or not
        /// read.
        id: Option<RawId>,
    },
}

/// The raw members of an envelope. `None` for a member that is missing.
#[derive(Default)]
struct Fields<'a> {
    jsonrpc: Option<&'a str>,
    id: Option<&'a str>,
    method: Option<&'a str>,
    params: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
    members: ReadMembers<'a>,
    /// Whether a known member appears twice, or the name of a member cannot be decoded.
    is_ambiguous: bool,
}

impl<'a> Fields<'a> {
    fn member(&mut self, scanner: &mut Scanner<'a>, key: &'a str) -> Result<(), Malformed> {
        let Some(key) = unquoted(key) else {
            self.is_ambiguous = true;
            return scanner.value().map(drop);
        };
        let slot = match &*key {
            "jsonrpc" => &mut self.jsonrpc,
            "id" => &mut self.id,
            "method" => &mut self.method,
            "params" => &mut self.params,
            "result" => &mut self.result,
            "error" => &mut self.error,
            _ => return scanner.value().map(drop),
        };
        self.is_ambiguous |= slot.is_some();
        let has_members = matches!(&*key, "params" | "result") && scanner.peek() == Some(b'{');
        *slot = Some(if has_members { self.members.read(scanner)? } else { scanner.value()? });
        Ok(())
    }
}

/// Reads the envelope of one message (JSON-RPC 2.0, sections 4 and 5; MCP forbids a null id). Unknown members are
/// ignored.
pub fn parse(message: &[u8]) -> Result<Envelope<'_>, ParseError> {
    let mut scanner = Scanner::of_bytes(message).map_err(ParseError::NotJson)?;
    if scanner.peek() != Some(b'{') {
        scanner.value().and_then(|_| scanner.end()).map_err(ParseError::NotJson)?;
        return Err(ParseError::Invalid { reason: "the message is not a JSON-RPC object", id: None });
    }
    let mut fields = Fields::default();
    let read = scanner.object(|scanner, key| fields.member(scanner, key)).and_then(|_| scanner.end());
    read.map_err(ParseError::NotJson)?;
    // A null counts as missing in these two; a result may be null.
    for optional in [&mut fields.params, &mut fields.error] {
        optional.take_if(|value| *value == "null");
    }
    // `members` holds those of one object only.
    let has_both = fields.params.is_some() && fields.result.is_some();
    if fields.is_ambiguous || has_both {
        let reason = "the message is not a JSON-RPC object with each member once, under a name that is text";
        return Err(ParseError::Invalid { reason, id: None });
    }
    let method = match fields.method {
        None | Some("null") => None,
        Some(raw) if raw.starts_with('"') => {
            Some(text(raw).ok_or(ParseError::NotJson(Malformed::Surrogate(scanner.at())))?)
        }
        Some(_) => {
            let reason = "the message is not a JSON-RPC object, or a member has the wrong type";
            return Err(ParseError::Invalid { reason, id: None });
        }
    };
    envelope(fields, method)
}

fn envelope<'a>(fields: Fields<'a>, method: Option<Cow<'a, str>>) -> Result<Envelope<'a>, ParseError> {
    let Fields { id: raw_id, params, result, error, members, .. } = fields;
    let id = raw_id.filter(|id| is_id(id));
    let invalid = |reason| Err(ParseError::Invalid { reason, id: id.and_then(RawId::new) });
    if fields.jsonrpc != Some("\"2.0\"") {
        return invalid("the message has no \"jsonrpc\": \"2.0\"");
    }
    let kind = match (&method, raw_id) {
        (Some(_), _) if result.is_some() || error.is_some() => {
            return invalid("a message has either a method, or a result or error");
        }
        (Some(_), None) => Kind::Notification,
        (Some(_), Some(_)) if id.is_none() => return invalid("the id must be a string or a number, and not null"),
        (Some(_), Some(_)) => Kind::Request,
        (None, _) if result.is_some() == error.is_some() => {
            return invalid("the message has no method, and not exactly one of result and error");
        }
        (None, Some(_)) => Kind::Response,
        (None, None) if error.is_some() => Kind::Response,
        (None, None) => return invalid("a result needs the id of its request"),
    };
    if params.is_some_and(|params| !params.starts_with(['{', '['])) {
        return invalid("params must be an object or an array");
    }
    let (raw_method, is_error) = (fields.method, error.is_some());
    Ok(Envelope { kind, id, method, raw_method, params, result, error, is_error, members })
}

/// Splits a batch (a JSON array) into at most `most` raw messages. `None` if the first character that is not white
/// space is no `[`.
pub fn split_batch(bytes: &[u8], most: usize) -> Option<Result<Vec<&str>, BatchError>> {
    Some(batch(bytes)?.map_err(BatchError::from).and_then(|batch| {
        let mut messages = Vec::new();
        for message in batch {
            let message = message?;
            if messages.len() == most {
                return Err(BatchError::TooLong);
            }
            messages.push(message);
        }
        Ok(messages)
    }))
}

/// The reason why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes are not UTF-8 or not JSON.
    #[error("the message is not JSON: {0}")]
    NotJson(#[from] Malformed),
    /// The batch has more messages than allowed. Reading stopped at the first message above the bound.
    #[error("the batch has too many messages")]
    TooLong,
}

/// The depth of the nesting of arrays and objects, if the depth is greater than `most`. Reads without recursion, and
/// does not check that the bytes are JSON.
pub fn deeper_than(most: usize, message: &[u8]) -> Option<usize> {
    // Counting brackets is much faster than measuring depth, and no more than `most` brackets are no deeper than
    // `most`.
    memchr::memchr2_iter(b'{', b'[', message).nth(most)?;
    Some(depth(message)).filter(|depth| *depth > most)
}

fn depth(message: &[u8]) -> usize {
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
        assert_eq!(deeper_than(199_999, deep.as_bytes()), Some(200_000));
        assert_eq!((deeper_than(200_000, deep.as_bytes()), deeper_than(1, b"[[],[],[]]")), (None, Some(2)));
        assert_eq!(deeper_than(2, b"[[],[],[]]"), None);
        assert_eq!(depth(br#"{"a":"[[[[\"[["}"#), 1);
        let message = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":{deep}}}}}"#);
        assert_eq!(parse(message.as_bytes()).unwrap().kind, Kind::Request);
    }

    #[test]
    fn batches_are_cut() {
        assert!(split_batch(b"{}", 9).is_none());
        assert_eq!(split_batch(b" [ {\"a\":1} , 2 ]", 2).unwrap().unwrap(), ["{\"a\":1}", "2"]);
        assert!(matches!(split_batch(b"[1,", 9).unwrap(), Err(BatchError::NotJson(_))));
        assert!(matches!(split_batch(b"[1] 2", 9).unwrap(), Err(BatchError::NotJson(_))));
        assert_eq!(split_batch(b"[1,2,3,4, and so on", 3).unwrap(), Err(BatchError::TooLong));
    }
}
