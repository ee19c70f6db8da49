//! A gateway of both transports in one process, whose every answer a test can replace. It notes what it was sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// One request, as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) verb: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// The message; null where there was none.
    pub(super) body: Value,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The method of the message, or the tool that is called.
    pub(super) fn what(&self) -> &str {
        let method = self.body["method"].as_str().unwrap_or_default();
        if method == "tools/call" { self.body["params"]["name"].as_str().unwrap() } else { method }
    }
}

type Override = Box<dyn Fn(&Seen, &Stub) -> Option<Response> + Send + Sync>;
pub(super) type Events = mpsc::Sender<String>;

/// What the handlers share with the test.
pub(super) struct Stub {
    log: watch::Sender<Vec<Seen>>,
    replace: Override,
    next_session: AtomicU64,
    /// The open sessions, each with its GET stream if there is one.
    pub(super) sessions: Mutex<HashMap<String, Option<Events>>>,
}

/// A running stub. It ends with the test.
pub(super) struct Gateway {
    pub(super) origin: String,
    pub(super) stub: Arc<Stub>,
    server: AbortOnDropHandle<()>,
}

impl Gateway {
    /// One that behaves.
    pub(super) async fn start() -> Self {
        Self::with(|_, _| None).await
    }

    /// One that answers with what `replace` gives, where it gives something.
    pub(super) async fn with(replace: impl Fn(&Seen, &Stub) -> Option<Response> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let stub = Arc::new(Stub {
            log: watch::Sender::default(),
            replace: Box::new(replace),
            next_session: AtomicU64::new(1),
            sessions: Mutex::default(),
        });
        let router = Router::new().fallback(handle).with_state(Arc::clone(&stub));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { origin, stub, server: AbortOnDropHandle::new(server) }
    }

    /// Stops listening, and gives the address where now nothing is.
    pub(super) async fn stop(self) -> String {
        self.server.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
        self.origin
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.stub.log.borrow().clone()
    }

    /// What was sent, shortly: the methods of messages and the names of tools.
    pub(super) fn said(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.what().to_owned()).filter(|what| !what.is_empty()).collect()
    }

    /// Waits until a request like that has come, and gives it.
    pub(super) async fn wait_for(&self, like: impl Fn(&Seen) -> bool) -> Seen {
        let mut log = self.stub.log.subscribe();
        let waited = tokio::time::timeout(super::program::PATIENCE, log.wait_for(|log| log.iter().any(&like))).await;
        waited.expect("the request comes").unwrap().iter().find(|seen| like(seen)).unwrap().clone()
    }
}

async fn handle(State(stub): State<Arc<Stub>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 25).await.unwrap();
    let (verb, path) = (parts.method, parts.uri.path().to_owned());
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let seen = Seen { verb, path, headers: parts.headers, body };
    let replaced = (stub.replace)(&seen, &stub);
    // Noted after the override ran: who waits for the note finds its effect done.
    stub.log.send_modify(|log| log.push(seen.clone()));
    replaced.unwrap_or_else(|| match (&seen.verb, seen.path.as_str()) {
        (&Method::GET, "/sse") => open_sse(&stub),
        (&Method::POST, path) if path.starts_with("/messages") => post_sse(&seen, &stub),
        (_, "/mcp") => streamable(&seen, &stub),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
}

fn new_session(stub: &Stub, events: Option<Events>) -> String {
    let id = format!("s{}", stub.next_session.fetch_add(1, Ordering::Relaxed));
    stub.sessions.lock().insert(id.clone(), events);
    id
}

fn open_sse(stub: &Stub) -> Response {
    let (events, response) = event_stream();
    let id = new_session(stub, Some(events.clone()));
    events.try_send(format!(": hello\n\nevent: endpoint\ndata: /messages/{id}?sessionId={id}\n\n")).unwrap();
    response
}

fn post_sse(seen: &Seen, stub: &Stub) -> Response {
    let id = seen.path.rsplit('/').next().unwrap();
    let Some(Some(events)) = stub.sessions.lock().get(id).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match seen.what() {
        "dies" => drop(stub.sessions.lock().remove(id)),
        "asks" => {
            for text in questions(&seen.body) {
                events.try_send(event(&text)).unwrap();
            }
        }
        _ => {}
    }
    if let Some(answer) = answer(&seen.body) {
        events.try_send(event(&answer)).unwrap();
    }
    StatusCode::ACCEPTED.into_response()
}

fn streamable(seen: &Seen, stub: &Stub) -> Response {
    if seen.what() == "initialize" {
        let id = new_session(stub, None);
        return ([("mcp-session-id", id)], json_body(&answer(&seen.body).unwrap())).into_response();
    }
    let id = seen.header("mcp-session-id").unwrap_or_default().to_owned();
    if !stub.sessions.lock().contains_key(&id) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match seen.verb {
        Method::DELETE => {
            stub.sessions.lock().remove(&id);
            StatusCode::OK.into_response()
        }
        Method::GET => {
            let (events, response) = event_stream();
            stub.sessions.lock().insert(id, Some(events));
            response
        }
        _ if seen.what() == "asks" => stream_of(questions(&seen.body).into_iter().chain(answer(&seen.body)).collect()),
        _ if seen.what() == "dies" => stream_of(vec![]),
        _ => match answer(&seen.body) {
            Some(text) => json_body(&text),
            None if seen.body["id"].is_null() || seen.body["method"].is_null() => StatusCode::ACCEPTED.into_response(),
            None => never(),
        },
    }
}

/// What a server answers; `None` where it does not.
pub(super) fn answer(message: &Value) -> Option<String> {
    let id = message.get("id").filter(|_| message["method"].is_string())?;
    let text = |text: &str| json!({ "content": [{ "type": "text", "text": text }] });
    let arguments = &message["params"]["arguments"];
    let result = match message["method"].as_str().unwrap() {
        "initialize" => {
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "stub", "version": "1" } })
        }
        "tools/list" => return Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{TOOLS}}}"#)),
        "tools/call" => match message["params"]["name"].as_str().unwrap() {
            "add" => text(&(arguments["a"].as_i64().unwrap() + arguments["b"].as_i64().unwrap()).to_string()),
            "asks" => text("asked"),
            "fails" => {
                json!({ "isError": true, "content": [{ "type": "text", "text": "disk full" }, { "type": "image", "data": "AA==" }] })
            }
            "hangs" | "dies" => return None,
            _ => {
                return Some(
                    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32602, "message": "no such tool" } })
                        .to_string(),
                );
            }
        },
        _ => json!({}),
    };
    Some(json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
}

const TOOLS: &str = r#"{"tools":[{"name":"add","description":"Adds two numbers.","inputSchema":{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"integer"}},"required":["a","b"]}},
{"name":"asks"},{"name":"fails"},{"name":"hangs"},{"name":"dies"},{"name":"odd"}],"vendor":1.0}"#;

/// What a server sends while it works on a call.
fn questions(_: &Value) -> Vec<String> {
    vec![
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": "call", "progress": 1 } }).to_string(),
        json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }).to_string(),
        json!({ "jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {} }).to_string(),
    ]
}

pub(super) fn event(message: &str) -> String {
    message.lines().fold("event: message\r\n".to_owned(), |text, line| text + "data: " + line + "\r\n") + "\r\n"
}

pub(super) fn json_body(text: &str) -> Response {
    ([("content-type", "application/json; charset=utf-8")], text.to_owned()).into_response()
}

/// A stream of these messages, which then ends.
pub(super) fn stream_of(messages: Vec<String>) -> Response {
    raw_stream(messages.iter().map(|message| event(message)).collect())
}

/// A stream of this text, which then ends.
pub(super) fn raw_stream(text: String) -> Response {
    ([("content-type", "text/event-stream")], text).into_response()
}

/// An answer whose body never comes.
pub(super) fn never() -> Response {
    let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
    ([("content-type", "application/json")], body).into_response()
}

/// A stream that a test writes to, open as long as the sender.
pub(super) fn event_stream() -> (Events, Response) {
    let (events, queue) = mpsc::channel::<String>(64);
    let body = futures_util::stream::unfold(queue, |mut queue| async move {
        queue.recv().await.map(|text| (Ok::<_, Infallible>(Bytes::from(text)), queue))
    });
    (events, ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response())
}
