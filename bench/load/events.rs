//! Server-sent events out of a growing buffer (the event-stream section of the HTML standard), as far as MCP needs
//! them.

use bytes::{Buf as _, BytesMut};

/// Cuts a byte stream into events. Nothing is scanned twice, however large an event is.
#[derive(Debug, Default)]
pub(crate) struct Events {
    scanned: usize,
    name: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    /// Takes every whole event from the front of `bytes` and hands its name and data to `each`.
    pub(crate) fn take(&mut self, bytes: &mut BytesMut, mut each: impl FnMut(&[u8], &[u8])) {
        while let Some(at) = bytes.get(self.scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.scanned + at;
            let line = bytes.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                if !self.data.is_empty() {
                    each(&self.name, &self.data);
                }
                self.name.clear();
                self.data.clear();
            } else if let Some(value) = field(line, b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            } else if let Some(value) = field(line, b"event:") {
                self.name.extend_from_slice(value);
            }
            bytes.advance(end + 1);
            self.scanned = 0;
        }
        self.scanned = bytes.len();
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}
