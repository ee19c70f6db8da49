//! A JSON-RPC message of the client: its bytes, which stay as they are, and the parsed members of its envelope.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{Error, RpcError};
use crate::jsonrpc::{Kind, ParseError, RawId, batch, parse};
use crate::mcp::{cancelled_notification, method};

/// A message in either direction.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) text: Bytes,
    pub(super) kind: Kind,
    pub(super) id: Option<RawId>,
    pub(super) method: Option<Box<str>>,
}

/// A message, or the end of a stream, from the gateway.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message.
    Message(Message),
    /// A stream of HTTP+SSE has ended. Answers to the requests on it cannot come any more.
    Lost {
        /// The number of the stream, from 1 in the order of opening.
        generation: u64,
        /// The reason.
        error: Error,
    },
}

impl Message {
    /// Parses one message.
    ///
    /// # Errors
    /// The text is not a JSON-RPC 2.0 message.
    pub(super) fn parse(text: Bytes) -> Result<Self, ParseError> {
        let envelope = parse(&text)?;
        let (kind, id) = (envelope.kind, envelope.raw_id());
        let method = envelope.method.map(|method| method.into_owned().into_boxed_str());
        Ok(Self { text, kind, id, method })
    }

    /// Parses one message, or each message of a batch (MCP 2025-03-26).
    pub(super) fn parse_all(text: &Bytes) -> Vec<Result<Self, ParseError>> {
        let message = |item: Result<&str, _>| {
            item.map_err(ParseError::NotJson).and_then(|item| Self::parse(text.slice_ref(item.as_bytes())))
        };
        match batch(text) {
            None => vec![Self::parse(text.clone())],
            Some(Err(error)) => vec![Err(ParseError::NotJson(error))],
            Some(Ok(items)) => items.map(message).collect(),
        }
    }

    /// A request with `params` in JSON.
    pub(super) fn request(id: RawId, method: &str, params: &str) -> Self {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"{method}","params":{params}}}"#, id.as_str());
        Self { text: text.into(), kind: Kind::Request, id: Some(id), method: Some(method.into()) }
    }

    /// A notification with `params` in JSON.
    pub(super) fn notification(method: &str, params: &str) -> Self {
        let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
        Self { text: text.into(), kind: Kind::Notification, id: None, method: Some(method.into()) }
    }

    /// The notification that the request `id` is cancelled.
    pub(super) fn cancelled(id: &RawId, reason: &str) -> Self {
        let text = cancelled_notification(id.as_str(), reason).into();
        Self { text, ..Self::notification(method::CANCELLED, "{}") }
    }

    /// An answer to the request `id` with this text.
    pub(super) fn response(text: Bytes, id: RawId) -> Self {
        Self { text, kind: Kind::Response, id: Some(id), method: None }
    }

    /// Whether the message is the request `initialize`.
    pub(super) fn is_initialize(&self) -> bool {
        self.kind == Kind::Request && self.method.as_deref() == Some(method::INITIALIZE)
    }

    /// Whether the message is the answer to the request whose [`id_key`] is `key`.
    pub(super) fn answers(&self, key: &str) -> bool {
        self.kind == Kind::Response && self.id.as_ref().is_some_and(|id| id_key(id) == key)
    }

    /// The raw `params`, or `{}` if the message has none.
    pub(super) fn params(&self) -> String {
        parse(&self.text).ok().and_then(|envelope| envelope.params).unwrap_or("{}").to_owned()
    }

    /// The raw result of an answer.
    ///
    /// # Errors
    /// [`Error::Rpc`] for an answer with an error, [`Error::Protocol`] if the answer is unreadable.
    pub(super) fn result(&self) -> Result<Box<RawValue>, Error> {
        #[derive(Deserialize)]
        struct Failure {
            error: RpcError,
        }
        let envelope = parse(&self.text).map_err(not_mcp)?;
        match envelope.result {
            Some(result) => {
                RawValue::from_string(result.to_owned()).map_err(|error| Error::Protocol(error.to_string()))
            }
            None => {
                let failure: Failure = serde_json::from_slice(&self.text)
                    .map_err(|_| Error::Protocol("the error of an answer has no code or message".to_owned()))?;
                Err(Error::Rpc(failure.error))
            }
        }
    }
}

/// The error for an unreadable message of the gateway.
pub(super) fn not_mcp(error: ParseError) -> Error {
    Error::Protocol(error.to_string())
}

/// A canonical form of an id, for comparisons: many servers decode an id and encode it in another way (`"\u0041"` as
/// `"A"`).
pub(super) fn id_key(id: &RawId) -> String {
    serde_json::from_str::<serde_json::Value>(id.as_str()).map_or_else(|_| id.as_str().to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_batch_is_cut_into_its_messages() {
        let text = Bytes::from_static(br#"[{"jsonrpc":"2.0","id":1,"result":{}}, {"jsonrpc":"2.0","method":"a"}, 7]"#);
        let all = Message::parse_all(&text);
        assert!(all[0].as_ref().unwrap().answers("1"));
        assert_eq!(all[1].as_ref().unwrap().kind, Kind::Notification);
        assert!(all[2].is_err());
    }

    #[test]
    fn ids_are_compared_by_value_and_type() {
        let key = |raw: &str| id_key(&RawId::new(raw).unwrap());
        assert_eq!(key(r#""\u0041""#), key(r#""A""#));
        assert_ne!(key("1"), key(r#""1""#));
    }

    #[test]
    fn results_and_errors_are_told_apart() {
        let read = |text: &'static str| Message::parse(Bytes::from_static(text.as_bytes())).unwrap().result();
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"result":{"b":1,"a":2}}"#).unwrap().get(), r#"{"b":1,"a":2}"#);
        let error = read(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#).unwrap_err();
        assert_eq!(error.exit_code(), 76);
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#).unwrap_err().exit_code(), 70);
    }
}
