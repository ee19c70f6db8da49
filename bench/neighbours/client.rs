//! An MCP client that keeps its connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::http::{Connection, Head};

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Sse,
    Streamable,
}

/// Who calls: from where, with which key, and which server.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) source: Ipv4Addr,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    pub(crate) server: String,
    /// The longest time for one read or write.
    pub(crate) patience: Duration,
}

impl Who {
    /// A connection to the gateway.
    pub(crate) fn connect(&self) -> io::Result<Connection> {
        Connection::open(self.source, self.address, self.patience)
    }

    /// The path of an endpoint of the server.
    pub(crate) fn path(&self, endpoint: &str) -> String {
        format!("/servers/{}{endpoint}", self.server)
    }

    /// A request's head, for a body of so many bytes; with lines of `more` headers.
    pub(crate) fn head(&self, method: &str, path: &str, length: usize, more: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n{more}\r\n",
            self.address, self.key
        )
    }

    /// A whole POST.
    pub(crate) fn post(&self, path: &str, session: Option<&str>, body: &str) -> Vec<u8> {
        let more = session.map(|session| format!("Mcp-Session-Id: {session}\r\n")).unwrap_or_default();
        [self.head("POST", path, body.len(), &more).as_bytes(), body.as_bytes()].concat()
    }
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    who: Who,
    posts: Connection,
    /// The stream of HTTP+SSE.
    stream: Option<Connection>,
    path: String,
    id: Option<String>,
    next: u64,
}

/// The body of `initialize`.
pub(crate) fn hello(capabilities: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"2025-03-26","capabilities":{{{capabilities}}},"clientInfo":{{"name":"neighbours","version":"1"}}}}}}"#
    )
}

impl Session {
    /// Connects without a handshake.
    pub(crate) fn connect(who: &Who, wire: Wire) -> io::Result<Self> {
        let posts = who.connect()?;
        let (mut path, mut stream) = (who.path("/mcp"), None);
        if wire == Wire::Sse {
            let mut connection = who.connect()?;
            connection.send(who.head("GET", &who.path("/sse"), 0, "").as_bytes())?;
            let head = connection.head()?;
            if head.status != 200 {
                return Err(refused(&head, &connection.body(&head)?));
            }
            let event = connection.event()?;
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            path = resolve(&who.path(""), data.ok_or_else(|| io::Error::other(format!("no endpoint: {event}")))?);
            stream = Some(connection);
        }
        Ok(Self { who: who.clone(), posts, stream, path, id: None, next: 0 })
    }

    /// Connects and shakes hands; `capabilities` are the members of that object.
    pub(crate) fn open(who: &Who, wire: Wire, capabilities: &str) -> io::Result<Self> {
        let mut session = Self::connect(who, wire)?;
        let answer = session.exchange(&hello(capabilities), 0)?;
        if !answer.contains(r#""result""#) {
            return Err(io::Error::other(format!("initialize was refused: {answer}")));
        }
        session.notify(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)?;
        Ok(session)
    }

    /// POSTs a body; returns the response's head and body. A connection that the gateway has closed while it was idle is
    /// replaced once, as all clients do.
    pub(crate) fn post(&mut self, body: &str) -> io::Result<(Head, String)> {
        let request = self.who.post(&self.path, self.id.as_deref(), body);
        if self.posts.is_closed() {
            self.posts = self.who.connect()?;
        }
        self.posts.send(&request)?;
        let head = self.posts.head()?;
        let body = self.posts.body(&head)?;
        if head.session.is_some() {
            self.id.clone_from(&head.session);
        }
        Ok((head, body))
    }

    /// POSTs what has no answer.
    pub(crate) fn notify(&mut self, body: &str) -> io::Result<()> {
        let (head, text) = self.post(body)?;
        if head.status == 202 { Ok(()) } else { Err(refused(&head, &text)) }
    }

    /// POSTs a request, and waits for the answer to its id.
    fn exchange(&mut self, body: &str, id: u64) -> io::Result<String> {
        let (head, text) = self.post(body)?;
        let has_id = |text: &str| text.contains(&format!(r#""id":{id},"#)) || text.contains(&format!(r#""id":{id}}}"#));
        let Some(stream) = &mut self.stream else {
            return if head.status == 200 && has_id(&text) { Ok(text) } else { Err(refused(&head, &text)) };
        };
        if head.status != 202 {
            return Err(refused(&head, &text));
        }
        loop {
            let event = stream.event()?;
            if has_id(&event) {
                return Ok(event);
            }
        }
    }

    /// The body of the next call of a tool, and its id.
    pub(crate) fn call_body(&mut self, tool: &str, arguments: &str) -> (String, u64) {
        self.next += 1;
        let id = self.next;
        let params = format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#);
        (format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#), id)
    }

    /// Calls a tool, and returns the whole answer.
    pub(crate) fn call(&mut self, tool: &str, arguments: &str) -> io::Result<String> {
        let (body, id) = self.call_body(tool, arguments);
        self.exchange(&body, id)
    }

    /// Calls `echo` with a text that no other call sends, and checks the answer.
    pub(crate) fn echo(&mut self) -> io::Result<()> {
        let text = format!("call {} of {}", self.next + 1, self.path);
        let answer = self.call("echo", &format!(r#"{{"text":"{text}"}}"#))?;
        if answer.contains(&text) { Ok(()) } else { Err(io::Error::other(format!("this is not {text:?}: {answer}"))) }
    }

    /// The stream of HTTP+SSE, to be read or left unread elsewhere.
    pub(crate) fn into_stream(self) -> Option<Connection> {
        self.stream
    }

    /// Ends the session as a client should.
    pub(crate) fn close(mut self) -> io::Result<()> {
        let Some(id) = self.id.take() else { return Ok(()) };
        let head = self.who.head("DELETE", &self.path, 0, &format!("Mcp-Session-Id: {id}\r\n"));
        self.posts.send(head.as_bytes())?;
        let head = self.posts.head()?;
        let text = self.posts.body(&head)?;
        if head.status == 200 { Ok(()) } else { Err(refused(&head, &text)) }
    }
}

fn refused(head: &Head, body: &str) -> io::Error {
    io::Error::other(format!("{} {body}", head.status))
}

/// The path that an endpoint means to a client of `/servers/NAME/sse`, whose folder is `base`.
fn resolve(base: &str, endpoint: &str) -> String {
    if endpoint.starts_with('/') { endpoint.to_owned() } else { format!("{base}/{endpoint}") }
}
