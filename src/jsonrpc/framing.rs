//! Cuts a byte stream into lines (stdio transport), whatever its chunks. A line over the limit is skipped and reported,
//! and the stream goes on; a multi-byte character is never split, because only whole lines leave here.

use bytes::{Bytes, BytesMut};

/// What comes out of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A line without its end (LF or CRLF), never empty.
    Line(Bytes),
    /// A line of this many bytes was longer than allowed and has been skipped.
    Oversized(usize),
}

/// Finds the lines in what has been read so far.
#[derive(Debug)]
pub struct Framer {
    /// Where to read into.
    pub buffer: BytesMut,
    max_line: usize,
    searched: usize,
    skipped: Option<usize>,
}

impl Framer {
    /// A framer for lines of at most `max_line` bytes.
    pub fn new(max_line: usize) -> Self {
        Self { buffer: BytesMut::new(), max_line, searched: 0, skipped: None }
    }

    /// The next line in the buffer; `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(offset) = memchr::memchr(b'\n', unsearched) else {
                self.searched = self.buffer.len();
                self.skip_if_oversized();
                return None;
            };
            let end = self.searched + offset;
            self.searched = 0;
            let mut line = self.buffer.split_to(end + 1);
            line.truncate(end);
            if line.last() == Some(&b'\r') {
                line.truncate(end - 1);
            }
            if let Some(skipped) = self.skipped.take() {
                return Some(Frame::Oversized(skipped + end));
            }
            if line.len() > self.max_line {
                return Some(Frame::Oversized(line.len()));
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(Frame::Line(line.freeze()));
            }
        }
    }

    /// What is left when the stream has ended: a last line without its end.
    pub fn finish(&mut self) -> Option<Frame> {
        let line = self.buffer.split();
        self.searched = 0;
        match self.skipped.take() {
            Some(skipped) => Some(Frame::Oversized(skipped + line.len())),
            None if line.iter().all(u8::is_ascii_whitespace) => None,
            None => Some(Frame::Line(line.freeze())),
        }
    }

    /// Lets go of what an endless line has brought so far, so that memory stays bounded.
    fn skip_if_oversized(&mut self) {
        // A carriage return may still be cut off, hence the one byte more.
        if self.skipped.is_some() || self.buffer.len() > self.max_line + 1 {
            *self.skipped.get_or_insert(0) += self.buffer.len();
            self.buffer.clear();
            self.searched = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn frames(chunks: &[&[u8]], max_line: usize) -> Vec<Frame> {
        let mut framer = Framer::new(max_line);
        let mut out = Vec::new();
        for chunk in chunks {
            framer.buffer.extend_from_slice(chunk);
            while let Some(frame) = framer.next_frame() {
                out.push(frame);
            }
            assert!(framer.buffer.len() <= max_line + 1);
        }
        out.extend(framer.finish());
        out
    }

    #[test]
    fn oversized_lines_are_skipped_and_the_stream_goes_on() {
        let long = [b'x'; 100];
        let got = frames(&[&long[..50], &long[50..], b"\r\nok\r\n\n \r\n", b"last"], 10);
        assert_eq!(got, [Frame::Oversized(101), Frame::Line("ok".into()), Frame::Line("last".into())]);
    }

    #[test]
    fn a_line_of_just_the_limit_passes() {
        assert_eq!(
            frames(&[b"0123456789\r", b"\n01234567890\n"], 10),
            [Frame::Line("0123456789".into()), Frame::Oversized(11)]
        );
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(text in "([a-zé✓]{0,12}\r?\n){0,8}", cuts in prop::collection::vec(0usize..200, 0..12)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(frames(&chunks, 64), frames(&[bytes], 64));
        }
    }
}
