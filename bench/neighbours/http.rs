//! One connection of HTTP/1.1, blocking: what is needed to call a gateway and to attack it.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// The address that attackers call from, so that a share of an address is not the victim's.
pub(crate) const HOSTILE_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The most that is read at once.
const READ: usize = 64 * 1024;

/// A keep-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    /// The text of events of a body in chunks, of which no whole event has been taken yet.
    events: Vec<u8>,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) session: Option<String>,
    /// The length of the body; `None` where the body comes in chunks.
    length: Option<usize>,
}

impl Connection {
    /// Connects from `source`. Each later read and write fails after `patience`.
    pub(crate) fn open(source: Ipv4Addr, address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // The address alone: two connections from one port are no matter where their peers differ.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(source, 0))?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(patience))?;
        stream.set_read_timeout(Some(patience))?;
        connect(&stream, &address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), events: Vec::new() })
    }

    /// Whether the gateway has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        let mut byte = [0];
        let peek = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut byte));
        let is_open = matches!(&peek, Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_err() || !is_open
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; READ];
        let read = self.stream.read(&mut chunk).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer in time"),
            _ => error,
        })?;
        if read == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the gateway has closed the connection"));
        }
        self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok(())
    }

    /// Takes so many bytes.
    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Takes what stands before `end`, and `end`.
    fn take_until(&mut self, end: &[u8]) -> io::Result<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return String::from_utf8(self.take(at + end.len())?).map_err(io::Error::other);
            }
            self.fill()?;
        }
    }

    /// Reads the head of the next response.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        let text = self.take_until(b"\r\n\r\n")?;
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("this is no response: {text}")))?;
        let header = |wanted: &str| {
            let mut headers = text.lines().skip(1).filter_map(|line| line.split_once(": "));
            headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
        };
        let length = match (header("content-length"), header("transfer-encoding")) {
            (Some(length), _) => Some(length.parse().map_err(io::Error::other)?),
            (None, Some(_)) => None,
            (None, None) => Some(0),
        };
        Ok(Head { status, session: header("mcp-session-id"), length })
    }

    /// Reads the whole body.
    pub(crate) fn body(&mut self, head: &Head) -> io::Result<String> {
        let mut body = Vec::new();
        match head.length {
            Some(length) => body = self.take(length)?,
            None => {
                while let Some(mut chunk) = self.chunk()? {
                    body.append(&mut chunk);
                }
            }
        }
        String::from_utf8(body).map_err(io::Error::other)
    }

    /// The next chunk of a body (RFC 9112 section 7.1); `None` at its end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.take_until(b"\r\n")?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let mut chunk = self.take(size + 2)?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    /// The next event of a stream, as it is written; comments are events too.
    pub(crate) fn event(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.events, b"\n\n") {
                let rest = self.events.split_off(at + 2);
                let event = std::mem::replace(&mut self.events, rest);
                return String::from_utf8(event).map_err(io::Error::other);
            }
            let chunk = self.chunk()?;
            self.events.append(&mut chunk.ok_or_else(|| io::Error::other("the stream has ended"))?);
        }
    }
}
