//! One keep-alive HTTP/1.1 connection: just enough of a client to be cheap and right.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Room kept free for a read.
const READ: usize = 16 * 1024;

/// A connection and what was read from it and not yet used.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    raw: BytesMut,
    body: Body,
}

/// The head of a response, as far as it matters here.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) is_event_stream: bool,
    pub(crate) session: Option<String>,
}

/// What is still to come of the body.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Body {
    Bytes(usize),
    /// Bytes left of this chunk; none when the next thing is a size line.
    Chunk(Option<usize>),
    UntilClose,
    Done,
}

impl Connection {
    /// Connects, with `TCP_NODELAY`.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, raw: BytesMut::with_capacity(2 * READ), body: Body::Done })
    }

    /// Sends a whole request.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Reads the head of the next response.
    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.raw, b"\r\n\r\n") {
                let text = self.raw.split_to(at + 4);
                let (head, body) = parse(&text).ok_or_else(|| invalid("a head that is not HTTP/1.1"))?;
                self.body = body;
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// Adds what there is of the body to `into`; false when the body has ended.
    pub(crate) async fn body(&mut self, into: &mut BytesMut) -> io::Result<bool> {
        loop {
            let before = into.len();
            self.decode(into)?;
            if into.len() > before {
                return Ok(true);
            }
            if self.body == Body::Done {
                return Ok(false);
            }
            match self.fill().await {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof && self.body == Body::UntilClose => {
                    self.body = Body::Done;
                    return Ok(false);
                }
                other => other?,
            }
        }
    }

    /// Reads the rest of the body and forgets it.
    pub(crate) async fn skip_body(&mut self) -> io::Result<()> {
        let mut ignored = BytesMut::new();
        while self.body(&mut ignored).await? {
            ignored.clear();
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.raw.reserve(READ);
        if self.stream.read_buf(&mut self.raw).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn decode(&mut self, into: &mut BytesMut) -> io::Result<()> {
        loop {
            match self.body {
                Body::Done | Body::Bytes(0) => {
                    self.body = Body::Done;
                    return Ok(());
                }
                Body::UntilClose => {
                    into.extend_from_slice(&self.raw.split());
                    return Ok(());
                }
                Body::Bytes(left) => {
                    let some = self.raw.split_to(left.min(self.raw.len()));
                    into.extend_from_slice(&some);
                    self.body = Body::Bytes(left - some.len());
                    if some.len() < left {
                        return Ok(());
                    }
                }
                Body::Chunk(None) => match self.chunk_size()? {
                    Some(size) => self.body = Body::Chunk(Some(size)),
                    None => return Ok(()),
                },
                Body::Chunk(Some(left)) => {
                    let some = self.raw.split_to(left.min(self.raw.len()));
                    into.extend_from_slice(&some);
                    let left = left - some.len();
                    self.body = Body::Chunk(Some(left));
                    if left > 0 || !self.chunk_end() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes a chunk's size line, and with the last chunk its end. None while there is too little of it.
    fn chunk_size(&mut self) -> io::Result<Option<usize>> {
        let Some(at) = memchr::memmem::find(&self.raw, b"\r\n") else { return Ok(None) };
        let line = self.raw.get(..at).unwrap_or_default();
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
        let size = size.ok_or_else(|| invalid("a chunk without a size"))?;
        if size == 0 {
            if self.raw.len() < at + 4 {
                return Ok(None);
            }
            self.raw.advance(at + 4);
            self.body = Body::Done;
            return Ok(None);
        }
        self.raw.advance(at + 2);
        Ok(Some(size))
    }

    /// Takes the line end after a chunk, if it is there.
    fn chunk_end(&mut self) -> bool {
        if self.raw.len() < 2 {
            return false;
        }
        self.raw.advance(2);
        self.body = Body::Chunk(None);
        true
    }
}

fn parse(text: &[u8]) -> Option<(Head, Body)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.split("\r\n");
    let mut head = Head { status: lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?, ..Head::default() };
    let mut body = if matches!(head.status, 204 | 304) { Body::Done } else { Body::UntilClose };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            body = Body::Bytes(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            body = Body::Chunk(None);
        } else if name.eq_ignore_ascii_case("content-type") {
            head.is_event_stream = value.starts_with("text/event-stream");
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            head.session = Some(value.to_owned());
        }
    }
    Some((head, body))
}

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
