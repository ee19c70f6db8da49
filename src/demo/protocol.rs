//! The JSON-RPC messages of the built-in server. Invariant: ids and progress tokens go
//! back with the type they came with.

use serde_json::{Value, json};

use crate::mcp::revision::{LATEST, SPOKEN};

/// The line is not JSON.
pub(super) const PARSE_ERROR: i64 = -32700;
/// The JSON is not a request.
pub(super) const INVALID_REQUEST: i64 = -32600;
/// The method is not known.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters do not fit the method.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// There is no such resource.
pub(super) const RESOURCE_NOT_FOUND: i64 = -32002;

/// The error of a request: the member `error` of its answer.
#[derive(Debug)]
pub(super) struct RpcError(Value);

impl RpcError {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self(json!({"code": code, "message": message.into()}))
    }

    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    pub(super) fn with_data(mut self, data: Value) -> Self {
        self.0.as_object_mut().and_then(|members| members.insert("data".to_owned(), data));
        self
    }
}

/// The answer to the request `id`.
pub(super) fn response(id: &Value, outcome: Result<Value, RpcError>) -> Value {
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(RpcError(error)) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    }
}

/// A notification to the client.
pub(super) fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// The result of `initialize`: the version asked for where it is spoken, else the latest.
pub(super) fn initialize(params: &Value) -> Result<(&'static str, Value), RpcError> {
    let asked = params
        .get("protocolVersion")
        .and_then(Value::as_str)
        .ok_or_else(|| RpcError::params("initialize: params.protocolVersion must be a string, such as 2025-11-25"))?;
    let version = SPOKEN.into_iter().find(|version| *version == asked).unwrap_or(LATEST);
    let result = json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
        "serverInfo": {"name": "sluice-demo", "title": "Sluice demo server", "version": env!("CARGO_PKG_VERSION")},
        "instructions": "Tools that add, echo and wait, and that run commands and keep files in one workspace folder.",
    });
    Ok((version, result))
}
