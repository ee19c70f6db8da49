//! Lists the tools of a server, page by page within bounds, and describes a tool for people.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::mcp::method;

use super::conversation::Conversation;
use super::error::Error;
use super::schema::InputSchema;

/// The largest number of pages.
const MAX_PAGES: usize = 100;
/// The largest number of tools.
const MAX_TOOLS: usize = 10_000;

/// The members of a tool that this client reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    pub name: String,
    title: Option<String>,
    description: Option<String>,
    #[serde(default)]
    pub input_schema: InputSchema,
}

/// The result of `tools/list`.
#[derive(Debug)]
pub struct Catalog {
    /// The tools, in the server's order.
    pub tools: Vec<Tool>,
    /// The result in JSON: of a single page, the server's own text; of several pages, an object with all tools.
    pub raw: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    tools: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Requests all pages of the list of tools.
///
/// # Errors
/// [`Error::Protocol`] for an unreadable list, more than 100 pages or 10,000 tools, or a repeated cursor. Otherwise the
/// error of a request.
pub async fn list_tools(conversation: &mut Conversation) -> Result<Catalog, Error> {
    let unreadable = |error: serde_json::Error| Error::Protocol(format!("the list of tools cannot be read: {error}"));
    let (mut raw_tools, mut cursor, mut first) = (Vec::new(), None::<String>, None);
    for _ in 0..MAX_PAGES {
        let params = cursor
            .as_ref()
            .map_or_else(|| "{}".to_owned(), |cursor| Value::from_iter([("cursor", cursor.clone())]).to_string());
        let result = conversation.request(method::TOOLS_LIST, &params).await?;
        let page: Page = serde_json::from_str(result.get()).map_err(unreadable)?;
        raw_tools.extend(page.tools);
        if raw_tools.len() > MAX_TOOLS {
            return Err(Error::Protocol(format!("the server lists more than {MAX_TOOLS} tools")));
        }
        let is_first = first.is_none();
        first.get_or_insert(result);
        if page.next_cursor.is_none() {
            let tools = raw_tools.iter().map(|raw| serde_json::from_str(raw.get()).map_err(unreadable));
            let tools = tools.collect::<Result<_, _>>()?;
            let raw = match first {
                Some(only) if is_first => only.get().to_owned(),
                _ => format!("{{\"tools\":[{}]}}", raw_tools.iter().map(|raw| raw.get()).collect::<Vec<_>>().join(",")),
            };
            return Ok(Catalog { tools, raw });
        }
        if page.next_cursor == cursor {
            return Err(Error::Protocol("the list of tools goes on with the same cursor".to_owned()));
        }
        cursor = page.next_cursor;
    }
    Err(Error::Protocol(format!("the list of tools has more than {MAX_PAGES} pages")))
}

impl Catalog {
    /// The tool with this name.
    ///
    /// # Errors
    /// [`Error::Arguments`] with the names of up to 50 tools.
    pub fn tool(&self, name: &str) -> Result<&Tool, Error> {
        self.tools.iter().find(|tool| tool.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.name.as_str()).take(50).collect();
            let there = match names.as_slice() {
                [] => "this server has none".to_owned(),
                names => format!("there are: {}", names.join(", ")),
            };
            Error::Arguments(format!("there is no tool \"{name}\"; {there}"))
        })
    }
}

impl Tool {
    /// A description for people: the signature, and below it the title and the description of the server.
    pub fn describe(&self) -> String {
        let mut text = format!("{}({})", self.name, self.input_schema.signature());
        for line in self.title.iter().chain(&self.description).flat_map(|text| text.trim().lines()) {
            let _ = write!(text, "\n    {line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn catalog(tools: &str) -> Catalog {
        Catalog { tools: serde_json::from_str(tools).unwrap(), raw: String::new() }
    }

    #[test]
    fn a_tool_is_shown_as_it_is_called() {
        let catalog = catalog(
            r#"[{"name":"add","description":"Adds.\nTwo numbers.","inputSchema":{"type":"object",
                "properties":{"b":{"type":"number"},"a":{"type":"number","default":1}},"required":["b"]}},{"name":"now"}]"#,
        );
        assert_eq!(
            catalog.tool("add").unwrap().describe(),
            "add(b: number, a?: number = 1)\n    Adds.\n    Two numbers."
        );
        assert_eq!(catalog.tool("now").unwrap().describe(), "now(…)");
        let error = catalog.tool("ad").unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string()),
            (64, "there is no tool \"ad\"; there are: add, now".to_owned())
        );
    }
}
