//! A client on HTTP+SSE (2024-11-05).

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{Caller, Reply, Request, Response};

/// A client with an open stream. When it is dropped, its session ends.
#[derive(Debug)]
pub(crate) struct Sse {
    caller: Caller,
    /// Where it POSTs to, as the stream said.
    pub(crate) endpoint: String,
    /// The stream.
    pub(crate) stream: Response,
    /// What came while an answer was waited for, oldest first.
    pub(crate) unsolicited: VecDeque<Value>,
    next: u64,
}

impl Sse {
    /// Opens the stream and reads the endpoint, no more.
    pub(crate) async fn open(caller: &Caller) -> Self {
        let path = caller.path("/sse");
        let mut stream = caller.open(Request::get(&path)).await;
        assert_eq!(stream.status, 200, "{stream:?}");
        let event = stream.event().await.unwrap();
        assert_eq!(event.event.as_deref(), Some("endpoint"));
        let endpoint = resolve(&path, &event.data.unwrap());
        Self { caller: caller.clone(), endpoint, stream, unsolicited: VecDeque::new(), next: 0 }
    }

    /// Shakes hands.
    pub(crate) async fn initialized(mut self, version: &str) -> Self {
        let answer = self.request("initialize", hello(version)).await;
        assert!(answer.get("result").is_some(), "{answer}");
        self.post(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        self
    }

    /// POSTs a body, whatever it is, and returns the reply.
    pub(crate) async fn send(&self, body: impl ToString) -> Reply {
        self.caller.send(Request::post(&self.endpoint, body)).await
    }

    /// POSTs a message, which must be accepted.
    pub(crate) async fn post(&self, message: impl ToString) {
        let reply = self.send(message).await;
        assert_eq!((reply.status, reply.text.as_str()), (202, "Accepted"), "{reply:?}");
    }

    /// The next message on the stream, which must not have ended.
    pub(crate) async fn message(&mut self) -> Value {
        match self.unsolicited.pop_front() {
            Some(message) => message,
            None => self.stream.message().await.expect("the stream has ended"),
        }
    }

    /// Sends a request and waits for its answer: the whole message.
    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.post(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        loop {
            let message = self.stream.message().await.expect("the stream has ended");
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
            self.unsolicited.push_back(message);
        }
    }

    /// Calls a tool and returns the text of its result.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> String {
        text_of(&self.request("tools/call", json!({"name": tool, "arguments": arguments})).await)
    }
}

/// The path and query that a client POSTs to who asked for `path` and was told `endpoint` (the URL standard).
pub(crate) fn resolve(path: &str, endpoint: &str) -> String {
    let url = reqwest::Url::parse("http://gateway").unwrap().join(path).unwrap().join(endpoint).unwrap();
    url.as_str().strip_prefix("http://gateway").unwrap().to_owned()
}

/// The params of `initialize`.
pub(crate) fn hello(version: &str) -> Value {
    let capabilities = json!({"roots": {"listChanged": true}, "sampling": {}, "elicitation": {}});
    json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "test", "version": "1"}})
}

/// The text of a tool's result.
pub(crate) fn text_of(answer: &Value) -> String {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}")).to_owned()
}
