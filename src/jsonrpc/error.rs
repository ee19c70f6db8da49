//! The errors that the gateway itself answers with, as JSON-RPC error responses.
#![expect(clippy::disallowed_types, reason = "what the gateway itself says")]

use bytes::Bytes;
use serde_json::{Value, json};

use super::id::RawId;

/// The codes that the gateway uses. JSON-RPC 2.0 section 5.1; MCP 2026-07-28 for `-32022`; the rest from the range
/// that JSON-RPC leaves to implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// Not JSON.
    Parse = -32700,
    /// Not a valid message.
    InvalidRequest = -32600,
    /// No such method here.
    MethodNotFound = -32601,
    /// The params are not what the method takes.
    InvalidParams = -32602,
    /// The gateway failed.
    Internal = -32603,
    /// The child could not be started, or ended while the call was in flight.
    ServerUnavailable = -32000,
    /// The call or the start took too long.
    Timeout = -32001,
    /// A limit of the gateway: try again later.
    Overloaded = -32003,
    /// The protocol version is not spoken here.
    UnsupportedVersion = -32022,
}

/// A response with an empty result.
pub fn empty_response(id: &RawId) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.as_str()).into()
}

/// An error response. `id` is null where the request's could not be read.
pub fn error_response(id: Option<&RawId>, code: Code, message: &str) -> Bytes {
    error_response_with_data(id, code, message, &Value::Null)
}

/// An error response with `data` that a program can act on (left out when null).
pub fn error_response_with_data(id: Option<&RawId>, code: Code, message: &str, data: &Value) -> Bytes {
    let mut error = json!({ "code": code as i32, "message": message });
    if let (Some(object), false) = (error.as_object_mut(), data.is_null()) {
        object.insert("data".to_owned(), data.clone());
    }
    let id = id.map_or("null", RawId::as_str);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_comes_back_as_written() {
        let id = RawId::new("1.0");
        assert_eq!(
            error_response(id.as_ref(), Code::Timeout, "too \"slow\""),
            r#"{"jsonrpc":"2.0","id":1.0,"error":{"code":-32001,"message":"too \"slow\""}}"#
        );
    }
}
