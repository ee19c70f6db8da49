//! The resources and the prompt of the built-in server. Invariant: what is listed here is what can be read.

use serde_json::{Value, json};

use super::protocol::{RESOURCE_NOT_FOUND, RpcError};
use super::workspace::Workspace;

const ABOUT: &str = "demo://about";
const FILES: &str = "demo://workspace";

const ABOUT_TEXT: &str = "This is the demo server of Sluice, a gateway that shares stdio MCP servers with remote \
    clients.\n\nEvery session has its own server process. Its tools are `add`, `echo`, `slow`, `run_command`, \
    `write_file` and `read_file`; files and commands stay inside one workspace folder.\n";

/// The result of `resources/list`.
pub(super) fn resources() -> Value {
    json!({"resources": [
        {"uri": ABOUT, "name": "about", "title": "About this server",
         "description": "What this server is, and what it can do", "mimeType": "text/plain"},
        {"uri": FILES, "name": "workspace", "title": "Files of the workspace",
         "description": "One line a file: its path and its size in bytes", "mimeType": "text/plain"},
    ]})
}

/// The result of `resources/read`.
pub(super) fn read_resource(workspace: &Workspace, params: &Value) -> Result<Value, RpcError> {
    let uri = params
        .get("uri")
        .and_then(Value::as_str)
        .ok_or_else(|| RpcError::params("resources/read: params.uri must be a string"))?;
    let text = match uri {
        ABOUT => ABOUT_TEXT.to_owned(),
        FILES => workspace.list().map_err(|error| RpcError::new(-32603, error.to_string()))?,
        _ => {
            let message = format!("there is no such resource; this server has {ABOUT} and {FILES}");
            return Err(RpcError::new(RESOURCE_NOT_FOUND, message).with_data(json!({"uri": uri})));
        }
    };
    Ok(json!({"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]}))
}

/// The result of `prompts/list`.
pub(super) fn prompts() -> Value {
    json!({"prompts": [
        {"name": "greet", "title": "Greet somebody", "description": "Asks the model to greet somebody by name",
         "arguments": [{"name": "name", "description": "Who is greeted", "required": true}]},
    ]})
}

/// The result of `prompts/get`.
pub(super) fn get_prompt(params: &Value) -> Result<Value, RpcError> {
    match params.get("name").and_then(Value::as_str) {
        Some("greet") => {}
        Some(other) => return Err(RpcError::params(format!("there is no prompt `{other}`; this server has `greet`"))),
        None => return Err(RpcError::params("prompts/get: params.name must be a string")),
    }
    let name = params
        .pointer("/arguments/name")
        .and_then(Value::as_str)
        .ok_or_else(|| RpcError::params("greet: the argument `name` must be given, as a string"))?;
    Ok(json!({
        "description": "A greeting",
        "messages": [{"role": "user", "content": {"type": "text", "text": format!("Please greet {name} warmly.")}}],
    }))
}
