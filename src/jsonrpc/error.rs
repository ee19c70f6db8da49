//! Builds the JSON-RPC responses that the gateway itself sends.
#![expect(clippy::disallowed_types, reason = "what the gateway itself says")]

use bytes::Bytes;
use serde_json::{Value, json};

use super::id::RawId;

/// The error codes that the gateway uses: those of JSON-RPC 2.0 section 5.1, `-32022` of MCP 2026-07-28, and codes from
/// the range that JSON-RPC leaves to implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// The message is not JSON.
    Parse = -32700,
    /// The message is JSON, but not a valid request.
    InvalidRequest = -32600,
    /// The method does not exist or is not allowed.
    MethodNotFound = -32601,
    /// The params do not fit the method.
    InvalidParams = -32602,
    /// An internal error of the gateway.
    Internal = -32603,
    /// The child process could not be started, or ended during the call.
    ServerUnavailable = -32000,
    /// The call, or the start of the child process, exceeded its time-out.
    Timeout = -32001,
    /// A limit of the gateway is reached; the client may try again later.
    Overloaded = -32003,
    /// The gateway does not support the protocol version.
    UnsupportedVersion = -32022,
}

/// A response with an empty object as its result.
pub fn empty_response(id: &RawId) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.as_str()).into()
}

/// An error response without `data`. The id is null if `id` is `None`, for a message without a readable id.
pub fn error_response(id: Option<&RawId>, code: Code, message: &str) -> Bytes {
    error_response_with_data(id, code, message, &Value::Null)
}

/// An error response with the member `data`, which a null `data` leaves out. The id is null if `id` is `None`.
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
