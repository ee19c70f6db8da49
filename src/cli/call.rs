//! `sluice call`: calls one tool once. Only the result goes to stdout; the exit code tells whether the call succeeded.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::mcp::method;

use super::client::{self, Error};
use super::terminal;

/// The largest arguments that `--json` takes, in bytes.
const MAX_ARGUMENTS: u64 = 16 << 20;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = client::EXIT_CODES)]
pub struct Args {
    /// Where the server is: a path that ends in /sse means HTTP+SSE, any other Streamable HTTP
    #[arg(value_parser = client::Unshown(client::parse_url))]
    url: reqwest::Url,
    /// The tool
    tool: String,
    /// Its arguments; values are read as the types that the tool's schema names
    #[arg(value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "json")]
    arguments: Vec<(String, String)>,
    /// The arguments as one JSON object, passed on as it is; "-" reads stdin, "@FILE" a file
    #[arg(long, value_name = "OBJECT")]
    json: Option<String>,
    /// Print the result as JSON instead of its contents
    #[arg(long)]
    raw: bool,
    /// How long all of it may take
    #[arg(long, default_value = "60s", value_parser = crate::config::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    access: client::Access,
}

/// Splits `NAME=VALUE` at the first `=`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE, or give all arguments with --json")?;
    if name.is_empty() { Err("the name is missing".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let whole = match args.json.as_deref().map(object).transpose() {
        Ok(whole) => whole,
        Err(error) => return Ok(client::exit_code(Err(error))),
    };
    let result = client::converse(args.url, &args.access, args.timeout, async |conversation| {
        let arguments = match whole {
            Some(whole) => whole,
            None => {
                let catalog = client::list_tools(conversation).await?;
                Value::Object(catalog.tool(&args.tool)?.input_schema.arguments(&args.arguments)?).to_string()
            }
        };
        let name = Value::from(args.tool.as_str());
        let meta = if conversation.wants_progress() { r#","_meta":{"progressToken":"call"}"# } else { "" };
        conversation.request(method::TOOLS_CALL, &format!(r#"{{"name":{name},"arguments":{arguments}{meta}}}"#)).await
    });
    let outcome = client::block_on(result)?.and_then(|result| show(&result, args.raw));
    Ok(client::exit_code(outcome))
}

/// The JSON object that `--json` gives, as it is written: `source` itself, stdin for `-`, or a file for `@FILE`.
fn object(source: &str) -> Result<String, Error> {
    let unreadable = |error| Error::Arguments(format!("cannot read the arguments from {source}: {error}"));
    let reader: Box<dyn Read + '_> = match source.strip_prefix('@') {
        _ if source == "-" => Box::new(std::io::stdin()),
        Some(path) => Box::new(std::fs::File::open(path).map_err(unreadable)?),
        None => Box::new(source.as_bytes()),
    };
    let mut text = String::new();
    reader.take(MAX_ARGUMENTS + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_ARGUMENTS {
        return Err(Error::Arguments(format!("the arguments are larger than {MAX_ARGUMENTS} bytes")));
    }
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(value) if value.get().starts_with('{') => Ok(value.get().to_owned()),
        Ok(_) => Err(Error::Arguments("--json wants an object, such as '{\"a\": 2}'".to_owned())),
        Err(error) => Err(Error::Arguments(format!("--json is not JSON: {error}"))),
    }
}

/// Prints the result of a call: each text as it is, other contents as one line of JSON each. Returns the exit code.
fn show(result: &RawValue, raw: bool) -> Result<u8, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CallResult {
        #[serde(default)]
        content: Vec<Box<RawValue>>,
        structured_content: Option<Box<RawValue>>,
        #[serde(default)]
        is_error: bool,
    }
    #[derive(Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Content {
        Text {
            text: String,
        },
        #[serde(other)]
        Other,
    }
    let unreadable = |error| Error::Protocol(format!("the result of the tool cannot be read: {error}"));
    let read: CallResult = serde_json::from_str(result.get()).map_err(unreadable)?;
    if raw {
        terminal::foreign_line(result.get());
    } else {
        for content in &read.content {
            match serde_json::from_str(content.get()).map_err(unreadable)? {
                Content::Text { text } => terminal::foreign_line(&text),
                Content::Other => terminal::foreign_line(&one_line(content)),
            }
        }
        if let (true, Some(structured)) = (read.content.is_empty(), read.structured_content) {
            terminal::foreign_line(&one_line(&structured));
        }
    }
    if read.is_error {
        terminal::note("the tool failed");
        return Ok(client::TOOL_FAILED);
    }
    Ok(0)
}

/// JSON on one line. Line breaks in JSON can only be white space.
fn one_line(value: &RawValue) -> String {
    value.get().replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn pairs_are_cut_at_the_first_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err() && pair("=a").is_err());
    }

    #[test]
    fn whole_arguments_are_an_object_and_stay_as_written() {
        assert_eq!(object(" {\"b\":1.0, \"a\":1e2} ").unwrap(), "{\"b\":1.0, \"a\":1e2}");
        for text in ["[1]", "7", "{", "", "{} {}", "@/nonexistent/arguments.json"] {
            assert_eq!(object(text).unwrap_err().exit_code(), 64, "{text}");
        }
    }
}
