//! A client on Streamable HTTP (2025-03-26 to 2025-11-25).

use serde_json::{Value, json};

use super::sse::{hello, text_of};
use super::{Caller, Reply, Request, Response};

/// A client with a session. It stays until it is deleted, or idle for too long.
#[derive(Debug)]
pub(crate) struct Streamable {
    caller: Caller,
    /// The session's id.
    pub(crate) session: String,
    version: String,
    next: u64,
}

impl Streamable {
    /// Shakes hands.
    pub(crate) async fn initialize(caller: &Caller, version: &str) -> Self {
        let client = Self::greet(caller, version).await;
        client.notify(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        client
    }

    /// Sends `initialize`, and has not said yet that it has the answer.
    pub(crate) async fn greet(caller: &Caller, version: &str) -> Self {
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello(version)});
        let reply = caller.send(Request::post(&caller.path("/mcp"), message)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let session = reply.header("mcp-session-id").expect("a session id").to_owned();
        Self { caller: caller.clone(), session, version: version.to_owned(), next: 0 }
    }

    /// A request as this client sends it: with the session's id and, where the revision has it, the version.
    pub(crate) fn with_headers(&self, request: Request) -> Request {
        let request = request.default_header("Mcp-Session-Id", &self.session);
        if self.version.as_str() < "2025-06-18" {
            return request;
        }
        request.default_header("MCP-Protocol-Version", &self.version)
    }

    /// POSTs a body, whatever it is; the answer is still to be read.
    pub(crate) async fn open(&self, body: impl ToString) -> Response {
        self.caller.open(self.with_headers(Request::post(&self.caller.path("/mcp"), body))).await
    }

    /// POSTs a body, whatever it is, and returns the whole reply.
    pub(crate) async fn send(&self, body: impl ToString) -> Reply {
        self.open(body).await.reply().await
    }

    /// POSTs what is no request; it must be accepted.
    pub(crate) async fn notify(&self, message: impl ToString) {
        let reply = self.send(message).await;
        assert_eq!((reply.status, reply.text.as_str()), (202, ""), "{reply:?}");
    }

    /// Opens the stream for what belongs to no request, and reads its first comment.
    pub(crate) async fn stream(&self) -> Response {
        let mut stream = self.caller.open(self.with_headers(Request::get(&self.caller.path("/mcp")))).await;
        assert!(stream.status == 200 && stream.is_stream(), "{stream:?}");
        assert!(stream.event().await.unwrap().is_comment());
        stream
    }

    /// Ends the session.
    pub(crate) async fn delete(&self) -> Reply {
        self.caller.send(self.with_headers(Request::new("DELETE", &self.caller.path("/mcp")))).await
    }

    /// Sends a request and waits for its answer, in whatever form it comes: the whole message. What else is on the way
    /// is passed over.
    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut response = self.open(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        assert_eq!(response.status, 200, "{response:?}");
        if !response.is_stream() {
            let answer = response.reply().await.json();
            assert_eq!(answer["id"], id, "{answer}");
            return answer;
        }
        loop {
            let message = response.message().await.expect("an answer");
            if message["id"] == id && message.get("method").is_none() {
                assert_eq!(response.message().await, None, "the stream ends with the answer");
                return message;
            }
        }
    }

    /// Calls a tool and returns the text of its result.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> String {
        text_of(&self.request("tools/call", json!({"name": tool, "arguments": arguments})).await)
    }
}
