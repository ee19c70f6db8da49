//! A client of the gateway, with a session: HTTP/1.1 on one kept connection, and a second one for the stream.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;

use crate::KEY;
use crate::child::Child;

const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"#,
    r#""clientInfo":{"name":"count","version":"1"}}}"#
);
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const NOTIFICATION: &str = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
const TOLD: &str =
    "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"said\"}}\n";
/// The bytes of a large message, besides its envelope.
const LARGE: usize = 64 * 1024;

pub struct Client {
    posts: Connection,
    /// The stream of an HTTP+SSE session; `None` for Streamable HTTP.
    stream: Option<Connection>,
    /// The request line and the headers of a POST, without its length.
    head: String,
    pub server: Child,
    voice: pipe::Sender,
    /// The id of the last request.
    id: u64,
    /// The number of messages that the server has heard.
    heard: usize,
}

impl Client {
    /// Opens a session over Streamable HTTP.
    pub async fn streamable(address: SocketAddr) -> Self {
        let mut posts = Connection::open(address).await;
        let head = head("POST", "/mcp", "application/json, text/event-stream");
        posts.send(&post(&head, INITIALIZE)).await;
        let server = Child::start().await;
        let (answer, body) = posts.response().await;
        assert!(body.contains("\"id\":0"), "{answer}{body}");
        let id = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).expect("a session");
        let head = format!("{head}Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: 2025-06-18\r\n");
        Self::initialized(posts, None, head, server).await
    }

    /// Opens a session over HTTP+SSE.
    pub async fn sse(address: SocketAddr) -> Self {
        let mut stream = Connection::open(address).await;
        stream.send(&format!("{}\r\n", head("GET", "/sse", "text/event-stream"))).await;
        let first = stream.event().await;
        let uri = first.lines().find_map(|line| line.strip_prefix("data: ")).expect("an endpoint").to_owned();
        let head = head("POST", &format!("/{uri}"), "*/*");
        let mut posts = Connection::open(address).await;
        posts.send(&post(&head, INITIALIZE)).await;
        let server = Child::start().await;
        posts.response().await;
        let answer = stream.event().await;
        assert!(answer.contains("\"id\":0"), "{answer}");
        Self::initialized(posts, Some(stream), head, server).await
    }

    async fn initialized(mut posts: Connection, stream: Option<Connection>, head: String, server: Child) -> Self {
        posts.send(&post(&head, INITIALIZED)).await;
        posts.response().await;
        server.hears(2).await;
        let voice = server.voice();
        Self { posts, stream, head, server, voice, id: 0, heard: 2 }
    }

    /// A text of 64 KiB.
    pub fn large() -> String {
        "x".repeat(LARGE)
    }

    /// Calls a tool with this text, and waits for the answer.
    pub async fn call(&mut self, text: &str) {
        let id = self.post_call("echo", text).await;
        let (head, body) = self.posts.response().await;
        let answer = match &mut self.stream {
            Some(stream) => stream.event().await,
            None => body,
        };
        assert!(answer.contains(&id) && answer.contains("result"), "{id}: {head}{}", &answer[..answer.len().min(300)]);
        self.heard += 1;
    }

    /// Tells the server something, and waits until the server has heard it.
    pub async fn notify(&mut self) {
        self.posts.send(&post(&self.head, NOTIFICATION)).await;
        self.posts.response().await;
        self.heard += 1;
        self.server.hears(self.heard).await;
    }

    /// Waits for something that the server tells the client.
    pub async fn be_told(&mut self) {
        self.voice.write_all(TOLD.as_bytes()).await.unwrap();
        let event = self.stream.as_mut().expect("a stream").event().await;
        assert!(event.contains("said"), "{event}");
    }

    /// Calls a tool, cancels the call, and waits until the server has heard both.
    pub async fn cancel(&mut self) {
        self.post_call("unanswered", "").await;
        self.posts.response().await;
        let cancel = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"no"}}}}"#,
            self.id
        );
        self.posts.send(&post(&self.head, &cancel)).await;
        self.posts.response().await;
        self.heard += 2;
        self.server.hears(self.heard).await;
    }

    async fn post_call(&mut self, tool: &str, text: &str) -> String {
        self.id += 1;
        let id = self.id;
        let params = format!(r#"{{"name":"{tool}","arguments":{{"text":"{text}"}}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
        self.posts.send(&post(&self.head, &body)).await;
        format!("\"id\":{}", self.id)
    }
}

/// The request line and the headers of a request, without its length and end.
fn head(method: &str, path: &str, accept: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nAccept: {accept}\r\n")
}

fn post(head: &str, body: &str) -> String {
    let length = body.len();
    format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A connection, and what has come on it and is not read yet.
struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, read: Vec::with_capacity(256 * 1024) }
    }

    async fn send(&mut self, request: &str) {
        self.socket.write_all(request.as_bytes()).await.unwrap();
    }

    /// The head and the body of the next response, which has a length.
    async fn response(&mut self) -> (String, String) {
        let head = loop {
            if let Some(end) = memchr::memmem::find(&self.read, b"\r\n\r\n") {
                break self.take(end + 4);
            }
            self.more().await;
        };
        assert!(head.starts_with("HTTP/1.1 20"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let length = length.parse().unwrap();
        while self.read.len() < length {
            self.more().await;
        }
        let body = self.take(length);
        (head, body)
    }

    /// What has come on a stream up to the end of the next event.
    async fn event(&mut self) -> String {
        loop {
            let end = memchr::memmem::find_iter(&self.read, b"\n\n").find(|end| {
                // Neither the end of the head, which has carriage returns, nor a comment.
                !self.read[..*end].ends_with(b"\r")
            });
            if let Some(end) = end {
                return self.take(end + 2);
            }
            self.more().await;
        }
    }

    fn take(&mut self, length: usize) -> String {
        String::from_utf8(self.read.drain(..length).collect()).unwrap()
    }

    async fn more(&mut self) {
        let read = self.socket.read_buf(&mut self.read).await.unwrap();
        assert!(read > 0, "the gateway has closed a connection");
    }
}
