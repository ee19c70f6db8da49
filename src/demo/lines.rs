//! Cuts stdin into lines. Invariant: never holds more than one line of [`MAX_LINE`] bytes, however long the line is.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// The longest line taken, in bytes. A `write_file` of the largest content fits, however it is escaped.
pub(super) const MAX_LINE: usize = 8 * 1024 * 1024;

/// One line of input, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The bytes of the line.
    Complete(Vec<u8>),
    /// A line longer than [`MAX_LINE`]; its bytes were thrown away.
    Oversized,
}

/// The lines of a reader.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    partial: Vec<u8>,
    oversized: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, partial: Vec::new(), oversized: false }
    }

    /// The next line, or `None` at the end of the input. A last line without its newline is incomplete and is not
    /// returned. Cancel-safe: what was read stays here.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = memchr::memchr(b'\n', chunk);
            let taken = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            if self.oversized || self.partial.len() + taken.len() > MAX_LINE {
                self.oversized = true;
                self.partial = Vec::new();
            } else {
                self.partial.extend_from_slice(taken);
            }
            let consumed = end.map_or(chunk.len(), |at| at + 1);
            self.reader.consume(consumed);
            if end.is_some() {
                let (line, is_oversized) = (std::mem::take(&mut self.partial), std::mem::take(&mut self.oversized));
                return Ok(Some(if is_oversized { Line::Oversized } else { Line::Complete(line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_are_cut_whatever_the_chunks() {
        for capacity in [1, 2, 3, 64] {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, "ä1\n\nb\nrest".as_bytes()));
            assert_eq!(lines.next().await.unwrap(), Some(Line::Complete("ä1".into())));
            assert_eq!(lines.next().await.unwrap(), Some(Line::Complete(Vec::new())));
            assert_eq!(lines.next().await.unwrap(), Some(Line::Complete("b".into())));
            assert_eq!(lines.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn an_oversized_line_is_skipped_and_the_next_is_read() {
        let mut input = vec![b'x'; MAX_LINE + 1];
        input.extend_from_slice(b"\nnext\n");
        let mut lines = Lines::new(BufReader::new(input.as_slice()));
        assert_eq!(lines.next().await.unwrap(), Some(Line::Oversized));
        assert_eq!(lines.next().await.unwrap(), Some(Line::Complete("next".into())));
    }
}
