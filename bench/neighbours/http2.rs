//! HTTP/2 (RFC 9113) frame by frame, as far as attacks need it.

use std::io::{self, ErrorKind, Read as _};

use crate::client::Who;
use crate::http;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// The head of a frame.
const HEAD: usize = 9;

/// A connection with prior knowledge.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: http::Connection,
    buffer: Vec<u8>,
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [length.get(1..).unwrap_or_default(), &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header block of a request: literals under names of the static table (RFC 7541, appendix A).
pub(crate) fn headers(who: &Who, is_post: bool, path: &str) -> Vec<u8> {
    let literal =
        |name: &[u8], value: &str| [name, &[u8::try_from(value.len()).unwrap_or_default()], value.as_bytes()].concat();
    [
        // ":method" and ":scheme: http".
        vec![if is_post { 0x83 } else { 0x82 }, 0x86],
        // ":path", ":authority", "authorization", "content-type", "accept".
        literal(&[0x04], path),
        literal(&[0x01], &who.address.to_string()),
        literal(&[0x0f, 23 - 15], &format!("Bearer {}", who.key)),
        literal(&[0x0f, 31 - 15], "application/json"),
        literal(&[0x0f, 19 - 15], "application/json, text/event-stream"),
    ]
    .concat()
}

impl Connection {
    /// Connects, and sends preface and settings.
    pub(crate) fn open(who: &Who) -> io::Result<Self> {
        let mut inner = who.connect()?;
        inner.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat())?;
        Ok(Self { inner, buffer: Vec::new() })
    }

    /// Sends frames.
    pub(crate) fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.inner.send(frames)
    }

    /// Reads whatever comes, on a thread that ends with the connection.
    pub(crate) fn drain(&self) -> io::Result<()> {
        let mut stream = self.inner.stream.try_clone()?;
        std::thread::spawn(move || {
            let mut rest = [0; 16 * 1024];
            while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
        });
        Ok(())
    }

    /// Answers each PING and SETTINGS that has come. Does not wait.
    pub(crate) fn answer_pings(&mut self) -> io::Result<()> {
        self.inner.stream.set_nonblocking(true)?;
        let mut chunk = [0; 4096];
        let read = match self.inner.stream.read(&mut chunk) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed")),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        self.inner.stream.set_nonblocking(false)?;
        self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        while let Some(frame) = self.take() {
            self.answer(&frame)?;
        }
        Ok(())
    }

    /// Takes a whole frame off the buffer.
    fn take(&mut self) -> Option<Vec<u8>> {
        let length = self.buffer.first_chunk::<3>()?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if self.buffer.len() < HEAD + length {
            return None;
        }
        let rest = self.buffer.split_off(HEAD + length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    fn answer(&mut self, received: &[u8]) -> io::Result<()> {
        match received.get(3..5) {
            Some([PING, 0]) => self.send(&frame(PING, ACK, 0, received.get(HEAD..).unwrap_or_default())),
            Some([SETTINGS, 0]) => self.send(&frame(SETTINGS, ACK, 0, &[])),
            _ => Ok(()),
        }
    }
}
