//! Clients that go in every way but the right one, many at once: nothing of them is left.

use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Request, hello, in_time};
use crate::scene::{Scene, fixture};

/// How a connection is left.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// Closed.
    Close,
    /// Broken off: the gateway gets a reset.
    Reset,
    /// Only the sending half is closed, and it stays so until the gateway closes the other.
    HalfClose,
}

const LEAVE: [Leave; 3] = [Leave::Close, Leave::Reset, Leave::HalfClose];

async fn leave(mut stream: TcpStream, how: Leave) {
    match how {
        Leave::Close => {}
        Leave::Reset => set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
        Leave::HalfClose => {
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = in_time("the gateway closes its half", stream.read_to_end(&mut rest)).await;
        }
    }
}

/// One client's connections, made and used by hand.
struct Visitor<'a> {
    scene: &'a Scene,
}

impl Visitor<'_> {
    fn bytes(&self, request: Request) -> Vec<u8> {
        let key = format!("Bearer {}", self.scene.alices_key);
        request.header("Authorization", &key).bytes(self.scene.alice.address)
    }

    async fn connect(&self) -> TcpStream {
        in_time("a connection", TcpStream::connect(self.scene.alice.address)).await.unwrap()
    }

    async fn send(&self, request: Request) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(&self.bytes(request)).await.unwrap();
        stream
    }

    /// Sends a request and reads until `text` has come.
    async fn until(&self, request: Request, text: &str) -> (TcpStream, String) {
        let mut stream = self.send(request).await;
        let mut read = Vec::new();
        while memchr::memmem::find(&read, text.as_bytes()).is_none() {
            let more = in_time("an answer", stream.read_buf(&mut read)).await.unwrap();
            assert!(more > 0, "no {text} in {}", String::from_utf8_lossy(&read));
        }
        (stream, String::from_utf8(read).unwrap())
    }

    /// An open SSE stream, and the path to POST to.
    async fn sse(&self) -> (TcpStream, String) {
        let (stream, read) = self.until(Request::get("/servers/subject/sse"), "sessionId=").await;
        let start = read.find("messages?sessionId=").unwrap();
        let end = read[start..].find('\n').map_or(read.len(), |at| start + at);
        (stream, format!("/servers/subject/{}", &read[start..end]))
    }

    /// The id of a new session on Streamable HTTP.
    async fn session(&self) -> String {
        let (_, read) = self.until(Request::post("/servers/subject/mcp", greeting()), "\"result\"").await;
        let head = read.to_ascii_lowercase();
        let start = head.find("mcp-session-id: ").unwrap() + "mcp-session-id: ".len();
        let end = start + head[start..].find('\r').unwrap();
        read[start..end].to_owned()
    }

    async fn visit(&self, number: usize) {
        let how = LEAVE[number / 9 % LEAVE.len()];
        let mcp = "/servers/subject/mcp";
        match number % 9 {
            // Before a session.
            0 => {
                let mut stream = self.connect().await;
                let bytes = self.bytes(Request::get("/servers/subject/sse"));
                stream.write_all(&bytes[..bytes.len() / 2]).await.unwrap();
                leave(stream, how).await;
            }
            1 => {
                let mut stream = self.connect().await;
                let bytes = self.bytes(Request::post(mcp, greeting()));
                stream.write_all(&bytes[..bytes.len() - 10]).await.unwrap();
                leave(stream, how).await;
            }
            // Before the handshake, or in the midst of it.
            2 => leave(self.sse().await.0, how).await,
            3 => {
                let (stream, path) = self.sse().await;
                self.until(Request::post(&path, greeting()), "202").await;
                leave(stream, how).await;
            }
            4 => leave(self.send(Request::post(mcp, greeting())).await, how).await,
            // In the midst of a call, or of its stream.
            5 => {
                let (stream, path) = self.sse().await;
                self.until(Request::post(&path, greeting()), "202").await;
                self.until(Request::post(&path, call("hang")), "202").await;
                leave(stream, how).await;
            }
            6 => {
                let request = Request::post(mcp, call("hang")).header("Mcp-Session-Id", &self.session().await);
                leave(self.send(request).await, how).await;
            }
            7 => {
                let session = self.session().await;
                let request = Request::post(mcp, call("crash")).header("Mcp-Session-Id", &session);
                leave(self.send(request).await, how).await;
            }
            _ => {
                let request = Request::get(mcp).header("Mcp-Session-Id", &self.session().await);
                leave(self.until(request, ":").await.0, how).await;
            }
        }
    }
}

fn greeting() -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-03-26")})
}

fn call(tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
}

#[tokio::test]
async fn fifty_clients_that_leave_in_ugly_ways_leave_nothing_behind() {
    let mut server = fixture(&["echo"]);
    // A call whose client has gone ends with its time.
    server.limits.call_timeout = Duration::from_millis(500);
    let scene = Scene::with(server, |config| {
        config.sessions.idle_timeout = Duration::from_secs(1);
        config.http.header_timeout = Duration::from_secs(2);
        config.http.body_timeout = Duration::from_secs(2);
    })
    .await;
    let visitor = Visitor { scene: &scene };
    futures_util::future::join_all((0..54).map(|number| visitor.visit(number))).await;
    scene.until("no session is left", |m| m.sessions() == 0).await;
    scene.until("no child is left", |m| m.children() == 0).await;
    let spawned = scene.counts().await.spawned();
    // A third of them wait for the answer to initialize before they leave; the others may leave before there is a
    // child.
    assert!(spawned >= 18, "they were real sessions: {spawned}");
    scene.finish().await;
}
