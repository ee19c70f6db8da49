//! The least bridge there can be: axum, one child, and other ids on the way there and back. No sessions, no
//! credentials, no bounds, no end. What Sluice needs on top of it is the price of all that.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a tool for comparisons, which has no bounds on purpose"
)]

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

/// What is read of a message, in either direction.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<&'a str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

struct Bridge {
    /// Lines for the child.
    stdin: mpsc::UnboundedSender<String>,
    /// Who waits for the result of which number.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Box<str>>>>,
    next: AtomicU64,
}

/// Passes a message to the child; a request waits for its result.
async fn pass(State(bridge): State<Arc<Bridge>>, body: Bytes) -> Response {
    let message: Message<'_> = serde_json::from_slice(&body).unwrap();
    let method = message.method.unwrap();
    let params = message.params.map_or("{}", RawValue::get);
    let Some(id) = message.id else {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}\n");
        bridge.stdin.send(line).unwrap();
        return StatusCode::ACCEPTED.into_response();
    };
    let number = bridge.next.fetch_add(1, Ordering::Relaxed);
    let (sender, result) = oneshot::channel();
    bridge.waiting.lock().insert(number, sender);
    let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{number},\"method\":\"{method}\",\"params\":{params}}}\n");
    bridge.stdin.send(line).unwrap();
    let result = result.await.unwrap();
    ([(CONTENT_TYPE, "application/json")], format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"))
        .into_response()
}

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(address), Some(program)) = (words.next(), words.next()) else {
        return eprintln!("usage: least ADDRESS PROGRAM ARGUMENTS…");
    };
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the server starts");
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (sender, mut lines) = mpsc::unbounded_channel::<String>();
    let bridge = Arc::new(Bridge { stdin: sender, waiting: Mutex::default(), next: AtomicU64::new(1) });
    tokio::spawn(async move {
        while let Some(mut batch) = lines.recv().await {
            while let Ok(line) = lines.try_recv() {
                batch.push_str(&line);
            }
            stdin.write_all(batch.as_bytes()).await.unwrap();
        }
    });
    let answers = Arc::clone(&bridge);
    tokio::spawn(async move {
        let mut lines = BufReader::with_capacity(64 * 1024, stdout).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let message: Message<'_> = serde_json::from_str(&line).unwrap();
            let (Some(id), Some(result)) = (message.id, message.result) else { continue };
            let waiting = answers.waiting.lock().remove(&id.get().parse().unwrap());
            let _ = waiting.unwrap().send(result.get().into());
        }
    });
    let listener = tokio::net::TcpListener::bind(address).await.expect("the address is free");
    axum::serve(listener, Router::new().route("/mcp", post(pass)).with_state(bridge)).await.unwrap();
}
