//! HTTP/1.1 byte by byte: what is sent is what the test says, and what comes back is not interpreted more than needed.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::events::{self, Event};
use super::in_time;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request with no headers but those that HTTP needs.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A GET as clients send it: accepts a stream of events.
    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path).header("Accept", "text/event-stream")
    }

    /// A POST as clients send it: JSON, and both forms of answer are accepted.
    pub(crate) fn post(path: &str, body: impl ToString) -> Self {
        let mut request = Self::new("POST", path)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream");
        request.body = body.to_string().into_bytes();
        request
    }

    /// Sets a header, in the place of one of the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a header unless it is there.
    pub(crate) fn default_header(self, name: &str, value: &str) -> Self {
        if self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) { self } else { self.header(name, value) }
    }

    /// Takes a header away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// Any bytes as the body.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The request on the wire.
    pub(crate) fn bytes(self, host: SocketAddr) -> Vec<u8> {
        let length = self.body.len().to_string();
        let request = self.default_header("Host", &host.to_string()).default_header("Content-Length", &length);
        let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.path).into_bytes();
        for (name, value) in &request.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&request.body);
        bytes
    }
}

/// A connection, for requests that no client would send.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::of(in_time("a connection", TcpStream::connect(address)).await.unwrap())
    }

    /// A connection from another loopback address.
    pub(crate) async fn open_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Self::of(in_time("a connection", socket.connect(address)).await.unwrap())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes. A peer that has closed the connection meanwhile is no error: its answer says why.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = in_time("the gateway reads", self.stream.write_all(bytes)).await;
    }

    /// Reads what comes; false at the end.
    async fn fill(&mut self) -> bool {
        let read = in_time("the gateway says something", self.stream.read_buf(&mut self.buffer)).await;
        matches!(read, Ok(1..))
    }

    /// Reads until the gateway closes the connection.
    pub(crate) async fn until_closed(mut self) -> String {
        while self.fill().await {}
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Whether the gateway has closed the connection, or closes it before it says anything else.
    pub(crate) async fn is_closed(&mut self) -> bool {
        !self.fill().await
    }

    /// Reads the head of a response.
    pub(crate) async fn response(mut self) -> Response {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            assert!(self.fill().await, "no response, but {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let rest = self.buffer.split_off(end + 4);
        let head = String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let framing = match (find("transfer-encoding"), find("content-length")) {
            (Some("chunked"), _) => Framing::Chunked,
            (_, Some(length)) => Framing::Bytes(length.parse().unwrap()),
            (_, None) if status == 202 || status == 204 => Framing::Bytes(0),
            (_, None) => Framing::UntilClosed,
        };
        Response { status, headers, connection: self, framing, decoded: Vec::new() }
    }
}

#[derive(Debug)]
enum Framing {
    Bytes(usize),
    Chunked,
    UntilClosed,
}

/// A response whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    connection: Connection,
    framing: Framing,
    decoded: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether it is a stream of events.
    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }

    /// The rest of the body.
    pub(crate) async fn reply(mut self) -> Reply {
        while self.more().await {}
        let text = String::from_utf8(self.decoded).unwrap();
        Reply { status: self.status, headers: self.headers, text }
    }

    /// The next event or comment; `None` at the end of the stream.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = events::take(&mut self.decoded) {
                return Some(event);
            }
            if !self.more().await {
                let rest = String::from_utf8_lossy(&self.decoded);
                assert!(rest.is_empty(), "the stream ends in an event: {rest}");
                return None;
            }
        }
    }

    /// The next message in a stream of events, as it was written; comments are passed over.
    pub(crate) async fn message_text(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.event().await?.data {
                return Some(data);
            }
        }
    }

    /// The next message in a stream of events.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        self.message_text().await.map(|text| serde_json::from_str(&text).unwrap())
    }

    /// Reads on; false at the end of the body, however it came.
    async fn more(&mut self) -> bool {
        match &mut self.framing {
            Framing::Bytes(0) => false,
            Framing::Bytes(left) => {
                if self.connection.buffer.is_empty() && !self.connection.fill().await {
                    return false;
                }
                let take = self.connection.buffer.len().min(*left);
                *left -= take;
                self.decoded.extend(self.connection.buffer.drain(..take));
                true
            }
            Framing::UntilClosed => {
                let more = self.connection.fill().await;
                self.decoded.append(&mut self.connection.buffer);
                more
            }
            Framing::Chunked => loop {
                if let Some(chunk) = take_chunk(&mut self.connection.buffer) {
                    if chunk.is_empty() {
                        self.framing = Framing::Bytes(0);
                        return false;
                    }
                    self.decoded.extend_from_slice(&chunk);
                    return true;
                }
                if !self.connection.fill().await {
                    return false;
                }
            },
        }
    }
}

/// Takes a whole chunk (RFC 9112 section 7.1) off the buffer.
fn take_chunk(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let line = memchr::memmem::find(buffer, b"\r\n")?;
    let size = usize::from_str_radix(std::str::from_utf8(&buffer[..line]).unwrap(), 16).unwrap();
    let end = line + 2 + size;
    if buffer.len() < end + 2 {
        return None;
    }
    let chunk = buffer[line + 2..end].to_vec();
    buffer.drain(..end + 2);
    Some(chunk)
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Reply {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {:?}", self.text))
    }

    /// The one message of the body, which is JSON or a stream of events.
    pub(crate) fn message(&self) -> Value {
        if self.header("content-type") != Some("text/event-stream") {
            return self.json();
        }
        let data = self.text.lines().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(data.unwrap_or_else(|| panic!("no message in {self:?}"))).unwrap()
    }

    /// Asserts an RFC 9457 problem of that status, whose detail holds `says`.
    pub(crate) fn assert_problem(&self, status: u16, says: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{says} is not in {body}");
    }

    /// Asserts a JSON-RPC error of that status and code, whose message holds `says`; returns the whole error response.
    pub(crate) fn assert_error(&self, status: u16, code: i64, says: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["jsonrpc"], "2.0", "{body}");
        assert_eq!(body["error"]["code"], code, "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{says} is not in {message}");
        body
    }
}
