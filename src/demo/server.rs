//! The conversation: reads requests, answers them, and runs calls side by side. Invariant: one request gets at most
//! one answer, none after its cancellation; when the input ends, every call ends with it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, join_all};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lines::{Line, Lines, MAX_LINE};
use super::protocol::{self, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RpcError, response};
use super::tools::{self, Progress, Toolbox};
use super::{Error, context};
use crate::mcp::method;
use crate::mcp::revision::WITHOUT_BATCHES;

/// Messages that wait for the client to read. When it is full, nothing more is read from the client.
const OUTGOING: usize = 256;
/// Calls that run at the same time; a further one is refused.
const MAX_CALLS: usize = 64;
/// Messages in one batch.
const MAX_BATCH: usize = 100;
/// How long calls in flight get to finish when the input has ended: `printf … | sluice stdio-demo` has its answers.
const GRACE: Duration = Duration::from_millis(300);

/// The answer to a message, when there is one; `None` where a message is not answered.
type Answer = Pin<Box<dyn Future<Output = Option<Value>> + Send>>;

fn now(answer: Option<Value>) -> Answer {
    Box::pin(std::future::ready(answer))
}

/// Serves one client until its input ends, then ends what still runs. Fails if reading or writing does.
pub async fn serve<R, W>(input: R, output: W, toolbox: Arc<Toolbox>) -> Result<(), Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (out, queue) = mpsc::channel(OUTGOING);
    let mut writer = JoinSet::new();
    writer.spawn(write(queue, output));
    let mut lines = Lines::new(BufReader::with_capacity(64 * 1024, input));
    let mut conversation = Conversation { toolbox, out, calls: JoinSet::new(), running: Arc::default(), batches: true };
    let ended = loop {
        tokio::select! {
            line = lines.next() => match line {
                Ok(Some(line)) => if conversation.take(line).await.is_break() { break Ok(()) },
                Ok(None) => break Ok(()),
                Err(error) => break Err(Error::io("reading the input", error)),
            },
            Some(done) = conversation.calls.join_next() => if let Err(error) = done {
                tracing::error!(%error, "a call failed; it is not answered");
            },
            Some(written) = writer.join_next() => {
                break written.unwrap_or(Ok(())).map_err(|error| Error::io("writing the output", error));
            }
        }
    };
    let finished = async { while conversation.calls.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, finished).await;
    conversation.calls.shutdown().await;
    drop(conversation);
    // A client that closed its end of the input may not read the output either.
    let _ = tokio::time::timeout(GRACE, writer.join_next()).await;
    ended
}

/// Writes the queue to `output`, many messages at a time.
async fn write<W: AsyncWrite + Unpin>(mut queue: mpsc::Receiver<Value>, mut output: W) -> std::io::Result<()> {
    let mut waiting = Vec::with_capacity(OUTGOING);
    while queue.recv_many(&mut waiting, OUTGOING).await > 0 {
        let mut bytes = Vec::new();
        for message in waiting.drain(..) {
            serde_json::to_writer(&mut bytes, &message)?;
            bytes.push(b'\n');
        }
        output.write_all(&bytes).await?;
        output.flush().await?;
    }
    Ok(())
}

/// The state of one conversation.
struct Conversation {
    toolbox: Arc<Toolbox>,
    out: mpsc::Sender<Value>,
    calls: JoinSet<()>,
    /// What can be cancelled, by the JSON text of the request id.
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
    /// Whether the negotiated revision has batches: 2025-06-18 removed them.
    batches: bool,
}

impl Conversation {
    /// Handles one line. Breaks when the client no longer reads.
    async fn take(&mut self, line: Line) -> ControlFlow<()> {
        let message = match line {
            Line::Oversized => Err(RpcError::new(INVALID_REQUEST, format!("a line has at most {MAX_LINE} bytes"))),
            Line::Complete(line) if line.trim_ascii().is_empty() => return ControlFlow::Continue(()),
            Line::Complete(line) => serde_json::from_slice(&line)
                .map_err(|error| RpcError::new(PARSE_ERROR, format!("the line is not JSON: {error}"))),
        };
        let mut answer = match message {
            Ok(Value::Array(batch)) => self.batch(batch),
            Ok(message) => self.message(&message),
            Err(error) => now(Some(response(&Value::Null, Err(error)))),
        };
        // Most answers need not be waited for.
        let Some(answer) = answer.as_mut().now_or_never() else {
            let out = self.out.clone();
            self.calls.spawn(async move {
                if let Some(answer) = answer.await {
                    // A client that has gone is noticed by the loop.
                    let _ = out.send(answer).await;
                }
            });
            return ControlFlow::Continue(());
        };
        if let Some(answer) = answer
            && self.out.send(answer).await.is_err()
        {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// A batch of 2025-03-26: the answers come back together, in an array.
    fn batch(&mut self, batch: Vec<Value>) -> Answer {
        let refused = |why: String| now(Some(response(&Value::Null, Err(RpcError::new(INVALID_REQUEST, why)))));
        if !self.batches {
            return refused("the negotiated revision has no batches: send one message a line".to_owned());
        }
        if batch.is_empty() || batch.len() > MAX_BATCH {
            return refused(format!("a batch has from 1 to {MAX_BATCH} messages, not {}", batch.len()));
        }
        let answers: Vec<Answer> = batch.iter().map(|message| self.message(message)).collect();
        Box::pin(async move {
            let answers: Vec<Value> = join_all(answers).await.into_iter().flatten().collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        })
    }

    /// One message.
    fn message(&mut self, message: &Value) -> Answer {
        let invalid = |id: &Value, why: &str| now(Some(response(id, Err(RpcError::new(INVALID_REQUEST, why)))));
        let id = match message.get("id") {
            id @ (None | Some(Value::String(_) | Value::Number(_))) => id,
            Some(_) => return invalid(&Value::Null, "an id is a string or a number"),
        };
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return invalid(id.unwrap_or(&Value::Null), "a message is an object with \"jsonrpc\": \"2.0\"");
        }
        let params = message.get("params").unwrap_or(&Value::Null);
        match (id, message.get("method").and_then(Value::as_str)) {
            (Some(id), Some(method)) => self.request(id, method, params),
            (None, Some(method::CANCELLED)) => {
                let call = params.get("requestId").and_then(|id| self.running.lock().remove(&id.to_string()));
                if let Some(call) = call {
                    call.cancel();
                }
                now(None)
            }
            (None, Some(_)) => now(None),
            // An answer, though this server asks nothing.
            (Some(_), None) if message.get("result").or(message.get("error")).is_some() => now(None),
            (id, None) => invalid(id.unwrap_or(&Value::Null), "a request has a method, and it is a string"),
        }
    }

    /// One request.
    fn request(&mut self, id: &Value, method: &str, params: &Value) -> Answer {
        if !matches!(params, Value::Null | Value::Object(_)) {
            return now(Some(response(id, Err(RpcError::params("params must be an object")))));
        }
        let outcome = match method {
            method::TOOLS_CALL => return self.call(id, params),
            method::INITIALIZE => protocol::initialize(params).map(|(version, result)| {
                self.batches = version < WITHOUT_BATCHES;
                result
            }),
            method::PING => Ok(json!({})),
            method::TOOLS_LIST => first_page(params).map(|()| tools::list()),
            method::RESOURCES_LIST => first_page(params).map(|()| context::resources()),
            method::RESOURCES_TEMPLATES_LIST => first_page(params).map(|()| json!({"resourceTemplates": []})),
            method::RESOURCES_READ => context::read_resource(&self.toolbox.workspace, params),
            method::PROMPTS_LIST => first_page(params).map(|()| context::prompts()),
            method::PROMPTS_GET => context::get_prompt(params),
            _ => Err(RpcError::new(METHOD_NOT_FOUND, format!("there is no method `{method}` here"))),
        };
        now(Some(response(id, outcome)))
    }

    /// A `tools/call`, which may take its time and can be cancelled.
    fn call(&mut self, id: &Value, params: &Value) -> Answer {
        // A batch counts as one, and its own size is bounded.
        if self.calls.len() >= MAX_CALLS {
            let busy = format!("{MAX_CALLS} calls are running already; wait until one has finished");
            return now(Some(response(id, Ok(tools::tool_error(&busy)))));
        }
        let progress = match Progress::of(params, self.out.clone()) {
            Ok(progress) => progress,
            Err(error) => return now(Some(response(id, Err(error)))),
        };
        let (id, params, toolbox) = (id.clone(), params.clone(), Arc::clone(&self.toolbox));
        let (running, key, cancelled) = (Arc::clone(&self.running), id.to_string(), CancellationToken::new());
        running.lock().insert(key.clone(), cancelled.clone());
        Box::pin(async move {
            let outcome = tokio::select! {
                () = cancelled.cancelled() => None,
                outcome = tools::call(&toolbox, &params, progress) => Some(outcome),
            };
            running.lock().remove(&key);
            outcome.map(|outcome| response(&id, outcome))
        })
    }
}

/// Lists have one page; a cursor cannot come from here.
fn first_page(params: &Value) -> Result<(), RpcError> {
    match params.get("cursor") {
        None => Ok(()),
        Some(_) => Err(RpcError::params("the cursor is not one of this server: its lists have one page")),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
