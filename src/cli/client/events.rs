//! Parses Server-Sent Events (HTML standard, section 9.2.6) from chunks of bytes. A line, or the data of one event,
//! above a limit is an error.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::error::Error;

/// A complete event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The field `event`, or `message` if that field is absent or empty.
    pub(super) name: String,
    /// The fields `data`, joined by line feeds.
    pub(super) data: Bytes,
}

/// A parser of one stream.
#[derive(Debug, Default)]
pub(super) struct EventParser {
    /// The largest line, and the largest data of an event, in bytes.
    limit: usize,
    /// The line in progress.
    line: Vec<u8>,
    /// Whether the last byte was a CR. A following LF belongs to the same line end.
    after_cr: bool,
    first_line: bool,
    name: String,
    data: Vec<u8>,
    has_data: bool,
    /// The last field `id` since the last blank line.
    pending_id: Option<String>,
    /// The id of the last event.
    last_id: Option<String>,
    retry: Option<Duration>,
    /// Complete events that have not been taken.
    ready: VecDeque<Event>,
}

impl EventParser {
    /// A parser for lines, and data of events, of at most `limit` bytes each.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, first_line: true, ..Self::default() }
    }

    /// Parses the next bytes of the stream.
    ///
    /// # Errors
    /// [`Error::Protocol`] if a line or the data of an event exceeds the limit. Events that were complete before can
    /// still be taken.
    pub(super) fn push(&mut self, mut chunk: &[u8]) -> Result<(), Error> {
        while !chunk.is_empty() {
            if std::mem::take(&mut self.after_cr)
                && let Some(rest) = chunk.strip_prefix(b"\n")
            {
                chunk = rest;
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', chunk) else {
                self.line.extend_from_slice(chunk);
                return self.check(self.line.len());
            };
            let (head, tail) = chunk.split_at(end);
            self.line.extend_from_slice(head);
            self.check(self.line.len())?;
            self.after_cr = tail.first() == Some(&b'\r');
            chunk = tail.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.line);
            self.take_line(&line)?;
            // The allocation is used again for the next line.
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    /// Takes the next complete event.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// The id of the last complete event, for the header `Last-Event-ID`. `None` without an id, or with an empty one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref().filter(|id| !id.is_empty())
    }

    /// The last field `retry`: the pause that the server wants before a reconnection.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn check(&self, length: usize) -> Result<(), Error> {
        match length > self.limit {
            true => Err(Error::Protocol(format!("an event is larger than {} bytes", self.limit))),
            false => Ok(()),
        }
    }

    /// Handles a complete line: a field, a comment, or the blank line that ends an event.
    fn take_line(&mut self, mut line: &[u8]) -> Result<(), Error> {
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let (field, value) = match memchr::memchr(b':', line) {
            // A line that starts with a colon is a comment.
            Some(0) => return Ok(()),
            Some(colon) => {
                let (field, value) = line.split_at(colon);
                let value = value.get(1..).unwrap_or_default();
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.check(self.data.len())?;
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.pending_id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(value).unwrap_or_default();
                self.retry = digits.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends an event. Without a field `data` there is no event, but its id counts.
    fn dispatch(&mut self) {
        if let Some(id) = self.pending_id.take() {
            self.last_id = Some(id);
        }
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.ready.push_back(Event { name, data: data.into() });
        }
    }
}

/// The content of a stream, for the fuzz targets.
#[cfg(feature = "fuzzing")]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadEvents {
    /// The name and the data of each complete event.
    pub events: Vec<(String, Bytes)>,
    /// The id of the last event; `None` without one.
    pub last_id: Option<String>,
    /// The last field `retry`; `None` without one.
    pub retry: Option<Duration>,
    /// Whether reading stopped at a line, or the data of an event, above the limit.
    pub is_oversized: bool,
}

/// Reads a stream that comes in these chunks, with `limit` bytes for a line and for the data of an event.
#[cfg(feature = "fuzzing")]
pub fn read_events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> ReadEvents {
    let (mut parser, mut read) = (EventParser::new(limit), ReadEvents::default());
    for chunk in chunks {
        read.is_oversized = parser.push(chunk).is_err();
        read.events.extend(std::iter::from_fn(|| parser.next_event()).map(|event| (event.name, event.data)));
        if read.is_oversized {
            break;
        }
    }
    (read.last_id, read.retry) = (parser.last_id().map(str::to_owned), parser.retry());
    read
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    struct Outcome {
        events: Vec<(String, String)>,
        last_id: Option<String>,
        retry: Option<Duration>,
        oversized: bool,
    }

    fn read(chunks: &[&[u8]], limit: usize) -> Outcome {
        let mut parser = EventParser::new(limit);
        let mut events = Vec::new();
        let mut oversized = false;
        for chunk in chunks {
            let result = parser.push(chunk);
            while let Some(event) = parser.next_event() {
                events.push((event.name, String::from_utf8_lossy(&event.data).into_owned()));
            }
            if result.is_err() {
                oversized = true;
                break;
            }
        }
        Outcome { events, last_id: parser.last_id().map(str::to_owned), retry: parser.retry(), oversized }
    }

    fn events(text: &str) -> Vec<(String, String)> {
        read(&[text.as_bytes()], 1000).events
    }

    fn message(data: &str) -> (String, String) {
        ("message".to_owned(), data.to_owned())
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        assert_eq!(events("event: endpoint\ndata: /m?s=1\n\n"), [("endpoint".to_owned(), "/m?s=1".to_owned())]);
        assert_eq!(events("data:a\ndata:  b\ndata\n\n"), [message("a\n b\n")]);
        assert_eq!(events(": comment\n\n:\n\ndata: x\nunknown: y\n\n"), [message("x")]);
        assert_eq!(events("\u{feff}data: bom\n\n"), [message("bom")]);
        assert_eq!(events("data: a:b\n\n"), [message("a:b")]);
        assert_eq!(events("data: never ended\n"), []);
        assert_eq!(events("event: left over\n\ndata: x\n\n"), [message("x")]);
        assert_eq!(events("data:\n\n"), [message("")]);
    }

    #[test]
    fn every_line_end_ends_a_line() {
        assert_eq!(events("data: a\r\rdata: b\r\n\r\ndata: c\n\n"), [message("a"), message("b"), message("c")]);
        // CR LF is one end: were it two, the data would be dispatched before its second line.
        assert_eq!(events("data: a\r\ndata: b\r\n\r\n"), [message("a\nb")]);
        assert_eq!(read(&[b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"], 100).events, [message("a\nb")]);
    }

    #[test]
    fn ids_and_retry_are_remembered() {
        let got = read(&[b"id: 7\nretry: 1500\ndata:\n\nid: 8\ndata: cut off"], 100);
        assert_eq!(got.last_id.as_deref(), Some("7"));
        assert_eq!(got.retry, Some(Duration::from_millis(1500)));
        assert_eq!(read(&[b"id: 7\n\nid: a\0b\nretry: 1s\n\n"], 100).last_id.as_deref(), Some("7"));
        assert_eq!(read(&[b"id: 7\n\nid\n\n"], 100).last_id, None);
        assert_eq!(read(&[b"retry: 5\n\nretry: x\n\n"], 100).retry, Some(Duration::from_millis(5)));
    }

    #[test]
    fn what_is_too_large_ends_the_stream_and_keeps_nothing() {
        let got = read(&[b"data: ok\n\ndata: 0123456789\n\n"], 12);
        assert_eq!(got.events, [message("ok")]);
        assert!(got.oversized);
        let lines = "data: 1234\n".repeat(4);
        assert!(read(&[lines.as_bytes()], 12).oversized);
        assert!(read(&[&[b'x'; 13]], 12).oversized);
        assert!(!read(&[&[b'x'; 12]], 12).oversized);
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(
            lines in prop::collection::vec("(\u{feff})?(data|event|id|retry|: c)?(:|: )?[a-zé✓0-9]{0,9}(\r\n|\r|\n)(\r\n|\r|\n)?", 0..10),
            cuts in prop::collection::vec(0usize..300, 0..20),
            limit in 8usize..40,
        ) {
            let text = lines.concat();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks, limit), read(&[bytes], limit));
        }
    }
}
