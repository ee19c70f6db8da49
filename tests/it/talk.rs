//! A client that can have many calls in flight, on either transport, and sees the bytes that come back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::harness::{Caller, Reply, Request, Response, eventually, hello, in_time, resolve};

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Sse,
    Streamable,
}

/// Each transport, for what must hold on both.
pub(crate) const BOTH: [Wire; 2] = [Wire::Sse, Wire::Streamable];

/// A client. On HTTP+SSE its session ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    link: Arc<Link>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Link {
    caller: Caller,
    wire: Wire,
    /// Where it POSTs to.
    path: String,
    session: Mutex<Option<String>>,
    next: AtomicU64,
    /// Requests that wait for an answer on the one stream, by the JSON text of their ids.
    waiting: Mutex<HashMap<String, oneshot::Sender<String>>>,
    unsolicited: Mutex<VecDeque<Value>>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
}

impl Client {
    /// Connects, and says nothing yet.
    pub(crate) async fn connect(caller: &Caller, wire: Wire) -> Self {
        let (path, stream) = match wire {
            Wire::Streamable => (caller.path("/mcp"), None),
            Wire::Sse => {
                let path = caller.path("/sse");
                let mut stream = caller.open(Request::get(&path)).await;
                assert_eq!(stream.status, 200, "{stream:?}");
                (resolve(&path, &stream.event().await.unwrap().data.unwrap()), Some(stream))
            }
        };
        let link = Arc::new(Link {
            caller: caller.clone(),
            wire,
            path,
            session: Mutex::default(),
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            unsolicited: Mutex::default(),
        });
        let reader = stream.map(|stream| tokio::spawn(Arc::clone(&link).read(stream)));
        Self { link, reader }
    }

    /// Connects and shakes hands.
    pub(crate) async fn open(caller: &Caller, wire: Wire) -> Self {
        let client = Self::connect(caller, wire).await;
        let answer = client.initialize().await;
        assert!(answer["result"].is_object(), "{answer}");
        client.notify("notifications/initialized", json!({})).await;
        client
    }

    /// The session's id, where there is one to be told.
    pub(crate) fn session_id(&self) -> Option<String> {
        self.link.session.lock().clone()
    }

    /// Sends `initialize`, outside of any session, and returns the whole answer.
    pub(crate) async fn initialize(&self) -> Value {
        self.start_initialize().await.unwrap()
    }

    pub(crate) fn start_initialize(&self) -> JoinHandle<Value> {
        *self.link.session.lock() = None;
        self.start("initialize", hello("2025-03-26"))
    }

    /// Sends a second `initialize` within the session.
    pub(crate) async fn initialize_again(&self) -> Value {
        self.request("initialize", hello("2025-03-26")).await
    }

    /// Sends a request; the whole answer comes when it comes.
    pub(crate) fn start(&self, method: &str, params: Value) -> JoinHandle<Value> {
        let id = self.link.next.fetch_add(1, Ordering::Relaxed).to_string();
        let number: u64 = id.parse().unwrap();
        let message = json!({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).to_string();
        let link = Arc::clone(&self.link);
        tokio::spawn(async move { serde_json::from_str(&link.exchange(&message, &id).await).unwrap() })
    }

    /// Sends a request, and waits for the whole answer.
    pub(crate) async fn request(&self, method: &str, params: Value) -> Value {
        self.start(method, params).await.unwrap()
    }

    pub(crate) fn start_call(&self, tool: &str, arguments: Value) -> JoinHandle<Value> {
        self.start("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// Calls a tool, and waits for the whole answer.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.start_call(tool, arguments).await.unwrap()
    }

    /// Calls a tool, and waits for the text of its result.
    pub(crate) async fn text(&self, tool: &str, arguments: Value) -> String {
        crate::harness::text_of(&self.call(tool, arguments).await)
    }

    /// The process id of the fixture behind it.
    pub(crate) async fn pid(&self) -> u32 {
        self.text("pid", json!({})).await.parse().unwrap()
    }

    /// Sends a message as it is written here, and waits for the answer to `id` (a JSON text), as it is written there.
    pub(crate) async fn exchange_raw(&self, message: &str, id: &str) -> String {
        self.link.exchange(message, id).await
    }

    /// The same, as a task.
    pub(crate) fn start_raw(&self, message: String, id: String) -> JoinHandle<String> {
        let link = Arc::clone(&self.link);
        tokio::spawn(async move { link.exchange(&message, &id).await })
    }

    /// Sends what has no answer; it must be accepted.
    pub(crate) async fn notify(&self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// Sends a message that has no answer, such as an answer; it must be accepted.
    pub(crate) async fn send(&self, message: &Value) {
        let reply = self.post(&message.to_string()).await;
        assert_eq!(reply.status, 202, "{reply:?}");
    }

    /// POSTs a body, whatever it is.
    pub(crate) async fn post(&self, body: &str) -> Reply {
        self.link.post(body).await.reply().await
    }

    /// What has come and is no answer, so far.
    pub(crate) fn unsolicited(&self) -> Vec<Value> {
        self.link.unsolicited.lock().iter().cloned().collect()
    }

    /// The same without the notifications that a list may have changed, which come when a child has taken another's
    /// place.
    pub(crate) fn unsolicited_but_lists(&self) -> Vec<Value> {
        self.unsolicited().into_iter().filter(|message| !is_about_a_list(message)).collect()
    }

    /// The next message that is no answer, and says nothing of a list.
    pub(crate) async fn next_but_lists(&self) -> Value {
        loop {
            let message = self.next_unsolicited().await;
            if !is_about_a_list(&message) {
                return message;
            }
        }
    }

    /// The next message that is no answer.
    pub(crate) async fn next_unsolicited(&self) -> Value {
        eventually("the server says something", async || self.link.unsolicited.lock().pop_front()).await
    }

    /// Opens the stream for what belongs to no request, where that is another than the one that takes all.
    pub(crate) async fn listen(&mut self) {
        if self.link.wire == Wire::Streamable {
            let request = self.link.with_session(Request::get(&self.link.path));
            let stream = self.link.caller.open(request).await;
            assert_eq!(stream.status, 200, "{stream:?}");
            self.hang_up().await;
            self.reader = Some(tokio::spawn(Arc::clone(&self.link).read(stream)));
        }
    }

    /// Ends the session as a client should.
    pub(crate) async fn close(mut self) {
        if self.link.wire == Wire::Streamable && self.session_id().is_some() {
            let request = self.link.with_session(Request::new("DELETE", &self.link.path));
            // It may have ended already.
            let reply = self.link.caller.send(request).await;
            assert!([200, 404].contains(&reply.status), "{reply:?}");
        }
        self.hang_up().await;
    }

    /// Breaks off the stream.
    pub(crate) async fn hang_up(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
            let _ = reader.await;
        }
    }
}

fn is_about_a_list(message: &Value) -> bool {
    message["method"].as_str().is_some_and(|method| method.ends_with("/list_changed"))
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.iter().for_each(JoinHandle::abort);
    }
}

impl Link {
    fn with_session(&self, request: Request) -> Request {
        match &*self.session.lock() {
            Some(session) => request.header("Mcp-Session-Id", session),
            None => request,
        }
    }

    async fn post(&self, body: &str) -> Response {
        let response = self.caller.open(self.with_session(Request::post(&self.path, body))).await;
        if let Some(session) = response.header("mcp-session-id") {
            *self.session.lock() = Some(session.to_owned());
        }
        response
    }

    async fn exchange(&self, message: &str, id: &str) -> String {
        let (answered, answer) = oneshot::channel();
        if self.wire == Wire::Sse {
            self.waiting.lock().insert(id.to_owned(), answered);
        }
        let mut response = self.post(message).await;
        if !response.is_stream() {
            let status = response.status;
            let reply = response.reply().await;
            if self.wire == Wire::Sse && status == 202 {
                return in_time("an answer on the stream", answer).await.expect("the stream has ended");
            }
            assert!(!reply.text.is_empty(), "no answer: {reply:?}");
            return reply.text;
        }
        loop {
            let text = response.message_text().await.expect("the stream ends without the answer");
            if let Some((_, answer)) = self.sort(text) {
                return answer;
            }
        }
    }

    /// An answer with the text of its id; keeps everything else.
    fn sort(&self, text: String) -> Option<(String, String)> {
        let envelope: Envelope<'_> = serde_json::from_str(&text).unwrap();
        match (envelope.id, envelope.method) {
            (Some(id), None) => Some((id.get().to_owned(), text)),
            _ => {
                self.unsolicited.lock().push_back(serde_json::from_str(&text).unwrap());
                None
            }
        }
    }

    async fn read(self: Arc<Self>, mut stream: Response) {
        while let Some(text) = stream.message_text().await {
            let Some((id, answer)) = self.sort(text) else { continue };
            let waiting = self.waiting.lock().remove(&id);
            let _ = waiting.unwrap_or_else(|| panic!("nobody has asked for {answer}")).send(answer);
        }
        // Whoever still waits learns that nothing comes any more.
        self.waiting.lock().clear();
    }
}
