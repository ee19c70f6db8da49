//! A responder that does next to nothing: it shows how many calls the load tool itself can make and check.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

/// The open streams by session.
type Streams = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<OwnedWriteHalf>>>>>;

/// Starts it on a thread of its own and gives its URL.
pub(crate) fn start() -> io::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}/sse", listener.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(serve(listener)));
    Ok(url)
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let streams = Streams::default();
    loop {
        let (connection, from) = listener.accept().await?;
        connection.set_nodelay(true)?;
        tokio::spawn(talk(connection, from.to_string(), Arc::clone(&streams)));
    }
}

/// Serves one connection: a GET makes it a stream, a POST puts its answer on the stream that its path names.
async fn talk(mut connection: TcpStream, name: String, streams: Streams) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(16 * 1024);
    loop {
        while let Some((head, body)) = request(&mut bytes) {
            if head.starts_with("GET") {
                let (mut reader, mut writer) = connection.into_split();
                let event = format!("event: endpoint\ndata: /m?sessionId={name}\n\n");
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                writer.write_all(format!("{head}{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
                let writer = Arc::new(tokio::sync::Mutex::new(writer));
                streams.lock().insert(name, writer);
                reader.read_buf(&mut bytes).await?;
                return Ok(());
            }
            let session = head.split(['=', ' ']).nth(2).unwrap_or_default();
            let stream = streams.lock().get(session).cloned();
            connection.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await?;
            if let (Some(stream), Some(answer)) = (stream, answer(&body)) {
                let event = format!("event: message\ndata: {answer}\n\n");
                stream.lock().await.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
            }
        }
        if connection.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

/// Takes a whole request: its head as text, and its body.
fn request(bytes: &mut BytesMut) -> Option<(String, BytesMut)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok());
    let length: usize = length.unwrap_or(0);
    if bytes.len() < end + length {
        return None;
    }
    bytes.advance(end);
    Some((head, bytes.split_to(length)))
}

/// The answer to a request, found by where the load tool puts things.
fn answer(body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let id = between(body, r#""id":"#, ",")?;
    let result = match between(body, r#""method":""#, "\"")? {
        "initialize" => {
            r#"{"protocolVersion":"2025-03-26","capabilities":{},"serverInfo":{"name":"r","version":"1"}}"#.to_owned()
        }
        "tools/list" => {
            r#"{"tools":[{"name":"echo","inputSchema":{"properties":{"text":{"type":"string"}}}}]}"#.to_owned()
        }
        _ => format!(r#"{{"content":[{{"type":"text","text":"{}"}}]}}"#, between(body, r#""text":""#, "\"")?),
    };
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split(end).next()
}
