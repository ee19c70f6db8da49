//! The JSON-RPC messages that the load tool sends, and what it needs to know of those that it gets.

use serde::Deserialize;

/// A message from the server. Only the first text of a result is looked at.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming<'a> {
    #[serde(default, borrow)]
    pub(crate) id: Option<&'a serde_json::value::RawValue>,
    #[serde(default)]
    pub(crate) method: Option<serde::de::IgnoredAny>,
    #[serde(default, borrow)]
    result: Option<Outcome<'a>>,
}

#[derive(Debug, Deserialize)]
struct Outcome<'a> {
    #[serde(default, borrow)]
    content: Vec<Content<'a>>,
    #[serde(default, rename = "isError")]
    is_error: bool,
}

#[derive(Debug, Deserialize)]
struct Content<'a> {
    #[serde(default, borrow)]
    text: std::borrow::Cow<'a, str>,
}

impl<'a> Incoming<'a> {
    /// Reads a message; `None` when it is not JSON of that shape.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The text of a tool's result, unless it is an error.
    pub(crate) fn text(&self) -> Option<&str> {
        let result = self.result.as_ref().filter(|result| !result.is_error)?;
        result.content.first().map(|content| content.text.as_ref())
    }
}

/// `initialize`, under an id that no call ever has.
pub(crate) fn initialize(client: usize) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"initialize-{client}","method":"initialize","params":{{"protocolVersion":"2025-03-26","capabilities":{{}},"clientInfo":{{"name":"load","version":"1"}}}}}}"#
    )
}

/// The notification that ends the handshake.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// `tools/list`, under an id that no call ever has.
pub(crate) fn list(client: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"list-{client}","method":"tools/list"}}"#)
}

/// A call of the tool. `id` is JSON; `text` is ASCII without quotes and backslashes.
pub(crate) fn call(into: &mut String, id: u64, tool: &str, argument: &str, text: &str) {
    use std::fmt::Write as _;
    let _ = write!(
        into,
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"{argument}":"{text}"}}}}}}"#
    );
}

/// The name of the tool's one string argument, out of the answer to `tools/list`.
#[expect(clippy::disallowed_types, reason = "a list of the server that is measured")]
pub(crate) fn argument(list: &[u8], tool: &str) -> Option<String> {
    let list: serde_json::Value = serde_json::from_slice(list).ok()?;
    let tools = list.pointer("/result/tools")?.as_array()?;
    let found = tools.iter().find(|candidate| candidate.get("name").and_then(|name| name.as_str()) == Some(tool))?;
    let properties = found.pointer("/inputSchema/properties")?.as_object()?;
    let string = |schema: &serde_json::Value| schema.get("type").and_then(|kind| kind.as_str()) == Some("string");
    properties.iter().find(|(_, schema)| string(schema)).map(|(name, _)| name.clone())
}
