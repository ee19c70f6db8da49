//! The tools: what each takes, and what it does. Invariant: arguments are checked before anything is done, and what is
//! wrong with them comes back as a tool error that says what to give.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value, json};
use tokio::sync::mpsc;

use super::protocol::{RpcError, notification};
use super::run_command::{Ended, MAX_OUTPUT, Outcome, Runner};
use super::workspace::{MAX_FILE, Workspace};
use crate::mcp::method;

/// The longest that `slow` and `run_command` take, in seconds.
const MAX_SECONDS: f64 = 60.0;
/// The time that `run_command` gives where none is asked for, in seconds.
const DEFAULT_SECONDS: f64 = 10.0;
/// The most steps of `slow`.
const MAX_STEPS: u32 = 1000;

/// What the tools work with.
#[derive(Debug)]
pub struct Toolbox {
    /// The folder that files and programs stay in.
    pub workspace: Workspace,
    /// Runs programs.
    pub runner: Runner,
}

/// Sends the progress of one call, where its request asked for it.
#[derive(Debug)]
pub(super) struct Progress {
    token: Option<Value>,
    out: mpsc::Sender<Value>,
}

impl Progress {
    /// Takes the token of a request's `params`. Fails if it is neither a string nor a number.
    pub(super) fn of(params: &Value, out: mpsc::Sender<Value>) -> Result<Self, RpcError> {
        match params.pointer("/_meta/progressToken") {
            None => Ok(Self { token: None, out }),
            Some(token @ (Value::String(_) | Value::Number(_))) => Ok(Self { token: Some(token.clone()), out }),
            Some(_) => Err(RpcError::params("_meta.progressToken must be a string or a number")),
        }
    }

    async fn report(&self, step: u32, steps: u32) {
        if let Some(token) = &self.token {
            let message = format!("step {step} of {steps}");
            let params = json!({"progressToken": token, "progress": step, "total": steps, "message": message});
            // A client that has gone is noticed by the conversation itself.
            let _ = self.out.send(notification(method::PROGRESS, params)).await;
        }
    }
}

/// A problem that the model that called can do something about.
struct ToolError(String);

impl<E: std::error::Error> From<E> for ToolError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs `tools/call`. An unknown tool is a protocol error; everything else that goes wrong is in the result.
pub(super) async fn call(toolbox: &Toolbox, params: &Value, progress: Progress) -> Result<Value, RpcError> {
    let name = params
        .get("name")
        .and_then(Value::as_str)
        .ok_or_else(|| RpcError::params("tools/call: params.name must be a string"))?;
    let arguments = match params.get("arguments") {
        None => Value::Object(Map::new()),
        Some(arguments @ Value::Object(_)) => arguments.clone(),
        Some(_) => return Err(RpcError::params("tools/call: params.arguments must be an object")),
    };
    let outcome = match name {
        "add" => add(arguments),
        "echo" => echo(arguments),
        "slow" => slow(arguments, progress).await,
        "run_command" => run_command(toolbox, arguments).await,
        "write_file" => write_file(&toolbox.workspace, arguments),
        "read_file" => read_file(&toolbox.workspace, arguments),
        _ => return Err(RpcError::params(format!("there is no tool `{name}`; tools/list names them"))),
    };
    Ok(outcome.unwrap_or_else(|ToolError(message)| tool_error(&format!("{name}: {message}"))))
}

/// A result that says what went wrong.
pub(super) fn tool_error(message: &str) -> Value {
    json!({"content": [{"type": "text", "text": message}], "isError": true})
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn parse<T: DeserializeOwned>(arguments: Value) -> Result<T, ToolError> {
    serde_json::from_value(arguments).map_err(|error| ToolError(format!("the arguments do not fit: {error}")))
}

/// The tool `add`.
fn add(arguments: Value) -> Result<Value, ToolError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        a: Number,
        b: Number,
    }
    let Arguments { a, b } = parse(arguments)?;
    let sum = match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Number::from_i128(i128::from(a) + i128::from(b)),
        _ => None,
    };
    let sum = sum.or_else(|| whole_or_float(a.as_f64()? + b.as_f64()?));
    let sum = sum.ok_or_else(|| ToolError("the sum is too large".to_owned()))?;
    let shown = sum.to_string();
    Ok(json!({"content": [{"type": "text", "text": shown}], "structuredContent": {"sum": sum}}))
}

/// A float as JSON, without a fraction where it has none: 7, not 7.0.
fn whole_or_float(number: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return format!("{number:.0}").parse::<i64>().ok().map(Number::from);
    }
    Number::from_f64(number)
}

/// The tool `echo`.
fn echo(arguments: Value) -> Result<Value, ToolError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        text: String,
    }
    Ok(text(&parse::<Arguments>(arguments)?.text))
}

/// The tool `slow`.
async fn slow(arguments: Value, progress: Progress) -> Result<Value, ToolError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        seconds: Option<f64>,
        steps: Option<u32>,
    }
    let Arguments { seconds, steps } = parse(arguments)?;
    let (seconds, steps) = (seconds.unwrap_or(2.0), steps.unwrap_or(5));
    let whole = bounded_seconds("seconds", seconds, 0.0)?;
    if !(1..=MAX_STEPS).contains(&steps) {
        return Err(ToolError(format!("`steps` must be from 1 to {MAX_STEPS}, not {steps}")));
    }
    let begin = tokio::time::Instant::now();
    for step in 1..=steps {
        tokio::time::sleep_until(begin + whole * step / steps).await;
        progress.report(step, steps).await;
    }
    Ok(text(&format!("Waited {seconds} s in {steps} steps.")))
}

/// The tool `run_command`.
async fn run_command(toolbox: &Toolbox, arguments: Value) -> Result<Value, ToolError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        command: String,
        #[serde(default)]
        args: Vec<String>,
        timeout_seconds: Option<f64>,
    }
    let Arguments { command, args, timeout_seconds } = parse(arguments)?;
    let seconds = timeout_seconds.unwrap_or(DEFAULT_SECONDS);
    let limit = bounded_seconds("timeout_seconds", seconds, 0.001)?;
    let Outcome { ended, stdout, stderr } = toolbox.runner.run(&toolbox.workspace, &command, &args, limit).await?;
    let (stdout, stderr) = (stdout.text(), stderr.text());
    let (note, code, timed_out) = match ended {
        Ended::Exit(0) => (None, Some(0), false),
        Ended::Exit(code) => (Some(format!("[exit code {code}]")), Some(code), false),
        Ended::Signal(signal) => (Some(format!("[ended by signal {signal}]")), None, false),
        Ended::TimedOut => (Some(format!("[killed after {seconds} s, with all that it started]")), None, true),
    };
    let mut shown = stdout.clone();
    for part in [(!stderr.is_empty()).then(|| format!("[stderr]\n{stderr}")), note.clone()].into_iter().flatten() {
        if !shown.is_empty() && !shown.ends_with('\n') {
            shown.push('\n');
        }
        shown.push_str(&part);
    }
    Ok(json!({
        "content": [{"type": "text", "text": shown}],
        "structuredContent": {"exitCode": code, "timedOut": timed_out, "stdout": stdout, "stderr": stderr},
        "isError": note.is_some(),
    }))
}

fn bounded_seconds(name: &str, seconds: f64, least: f64) -> Result<Duration, ToolError> {
    if !(least..=MAX_SECONDS).contains(&seconds) {
        return Err(ToolError(format!("`{name}` must be from {least} to {MAX_SECONDS}, not {seconds}")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The tool `write_file`.
fn write_file(workspace: &Workspace, arguments: Value) -> Result<Value, ToolError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        path: String,
        content: String,
    }
    let Arguments { path, content } = parse(arguments)?;
    workspace.write(&path, content.as_bytes())?;
    Ok(text(&format!("Wrote {} bytes to {path}.", content.len())))
}

/// The tool `read_file`.
fn read_file(workspace: &Workspace, arguments: Value) -> Result<Value, ToolError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        path: String,
    }
    let Arguments { path } = parse(arguments)?;
    let content = String::from_utf8(workspace.read(&path)?)
        .map_err(|_| ToolError(format!("{path}: is not UTF-8 text, and only text can be returned")))?;
    Ok(text(&content))
}

/// The result of `tools/list`.
pub(super) fn list() -> Value {
    json!({"tools": [
        tool("add", "Add two numbers", "Adds the numbers a and b.",
            json!({"a": {"type": "number", "description": "The first number"},
                   "b": {"type": "number", "description": "The second number"}}),
            &["a", "b"],
            json!({"readOnlyHint": true, "openWorldHint": false}),
            Some(json!({"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}))),
        tool("echo", "Echo", "Returns the text that it is given.",
            json!({"text": {"type": "string", "description": "What is returned"}}),
            &["text"],
            json!({"readOnlyHint": true, "openWorldHint": false}),
            None),
        tool("slow", "Wait, with progress", "Waits, and reports progress after each step. Can be cancelled.",
            json!({"seconds": {"type": "number", "minimum": 0, "maximum": MAX_SECONDS, "default": 2,
                               "description": "How long it takes in all"},
                   "steps": {"type": "integer", "minimum": 1, "maximum": MAX_STEPS, "default": 5,
                             "description": "How often progress is reported"}}),
            &[],
            json!({"readOnlyHint": true, "openWorldHint": false}),
            None),
        tool("run_command", "Run a command",
            &format!("Runs one program in the workspace folder, without a shell, and returns what it writes (at most \
                {MAX_OUTPUT} bytes each of stdout and stderr). The program reaches no file outside the workspace but \
                the system's programs, and no network. Use command \"sh\" with args [\"-c\", \"…\"] for a shell."),
            json!({"command": {"type": "string", "description": "A program's name, or its path in the workspace"},
                   "args": {"type": "array", "items": {"type": "string"}, "default": [],
                            "description": "Its arguments, one by one"},
                   "timeout_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS,
                                       "default": DEFAULT_SECONDS, "description": "After this time it is killed"}}),
            &["command"],
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": false, "openWorldHint": false}),
            Some(json!({"type": "object", "properties": {
                "exitCode": {"type": ["integer", "null"], "description": "null where a signal ended the program"},
                "timedOut": {"type": "boolean"}, "stdout": {"type": "string"}, "stderr": {"type": "string"}},
                "required": ["exitCode", "timedOut", "stdout", "stderr"]}))),
        tool("write_file", "Write a file",
            &format!("Writes a text file in the workspace folder, and makes the folders above it. At most {MAX_FILE} bytes."),
            json!({"path": {"type": "string", "description": "Relative to the workspace, without `..`"},
                   "content": {"type": "string", "description": "The whole content of the file"}}),
            &["path", "content"],
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": true, "openWorldHint": false}),
            None),
        tool("read_file", "Read a file", &format!("Returns a text file of the workspace folder. At most {MAX_FILE} bytes."),
            json!({"path": {"type": "string", "description": "Relative to the workspace, without `..`"}}),
            &["path"],
            json!({"readOnlyHint": true, "openWorldHint": false}),
            None),
    ]})
}

/// One entry of [`list`].
fn tool(
    name: &str,
    title: &str,
    description: &str,
    properties: Value,
    required: &[&str],
    annotations: Value,
    output: Option<Value>,
) -> Value {
    let input =
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let mut tool = json!({
        "name": name, "title": title, "description": description, "inputSchema": input, "annotations": annotations,
    });
    if let (Some(fields), Some(output)) = (tool.as_object_mut(), output) {
        fields.insert("outputSchema".to_owned(), output);
    }
    tool
}
