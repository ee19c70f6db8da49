//! Splits a byte stream of any chunking into lines (stdio transport). Blank lines are dropped. A line above the limit
//! is skipped and reported, and the stream goes on. Only whole lines are returned, so a multi-byte character is never
//! split.
//!
//! Invariants: a returned line keeps at most four times its own length in memory, whatever was read together with the
//! line. What a charged framer holds beyond [`FREE`] is charged, and so is each line that it returns of 16 KiB or more.

use bytes::{Buf as _, Bytes, BytesMut};

use super::envelope::Kind;
use super::id::RawId;
use super::skim::Skimmer;
use crate::memory::{Account, Charge};

/// Lines shorter than this many bytes are copied out of the read buffer, as are lines shorter than a quarter of the
/// buffer. Other lines take the buffer along.
const SHORT: usize = 16 * 1024;
/// A read buffer with a larger capacity, in bytes, is replaced when the buffer holds less than [`SHORT`] bytes.
const LARGE: usize = 256 * 1024;
/// The capacity of the read buffer, in bytes, that is not charged here: whoever reads a stream is charged for as much.
pub const FREE: usize = 64 * 1024;
/// The divisor for the length of a skipped line in the count of waste: skipping a byte is this many times cheaper than
/// reading one.
const SKIPPED: usize = 4;
/// The number of bytes that a blank line adds to the count of waste, beside its length.
const BLANK: usize = 64;

/// A line of the stream, or the report of a line that was too long.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A line without its line ending (LF or CRLF), with other characters than white space in it.
    Line(Bytes),
    /// The report of a skipped line.
    Oversized(Oversized),
}

/// The report of a line above the limit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Oversized {
    /// The length of the line in bytes, without the LF.
    pub bytes: usize,
    /// The kinds and ids of the requests and responses in the line, as far as [`Skimmer::finish`] finds them.
    pub messages: Vec<(Kind, RawId)>,
    /// Whether the account had no room for the line, which may be within the limit.
    pub lacks_memory: bool,
}

/// Holds the bytes read so far, and cuts them into lines.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    /// The offset of the first line that has not been returned.
    start: usize,
    /// The offset up to which the buffer contains no end of that line.
    searched: usize,
    /// The longest line that is returned, in bytes without the line ending.
    max_line: usize,
    /// Reads a line above the limit, whose beginning is no longer in the buffer. `None` between such lines.
    skipped: Option<Skimmer>,
    /// Whether the account had no room for the line that is being skipped.
    lacks_memory: bool,
    /// The account that is charged, and the charge for the capacity of the buffer beyond [`FREE`]; `None` where nobody
    /// is charged.
    paid: Option<(Account, Charge)>,
    /// The bytes to be returned by [`Self::take_waste`].
    waste: usize,
}

impl Framer {
    /// A framer for lines of at most `max_line` bytes, without the line ending.
    pub fn new(max_line: usize) -> Self {
        let (buffer, paid) = (BytesMut::new(), None);
        Self { buffer, start: 0, searched: 0, max_line, skipped: None, lacks_memory: false, paid, waste: 0 }
    }

    /// Charges what the framer holds to `account` from now on. A line that the account has no room for is skipped and
    /// reported, as one above the limit.
    pub fn charge_to(&mut self, account: &Account) {
        if !self.paid.as_ref().is_some_and(|(charged, _)| charged.is(account)) {
            self.paid = Some((account.clone(), account.open()));
        }
    }

    /// The buffer, with room for at least `least` more bytes, or for fewer where the account has no room for a larger
    /// buffer. The caller appends the bytes that it reads from the stream.
    pub fn room(&mut self, least: usize) -> &mut BytesMut {
        if self.start > 0 {
            let left = self.buffer.len().saturating_sub(self.start);
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(left);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        if self.buffer.capacity() > LARGE && self.buffer.len() < SHORT {
            self.buffer = BytesMut::from(&*self.buffer);
        }
        self.grow(least);
        &mut self.buffer
    }

    /// Makes room for `least` more bytes, and charges the capacity. Where the account has no room, the buffer stays as
    /// large as it is; the line in a full buffer is skipped.
    fn grow(&mut self, least: usize) {
        let (len, capacity) = (self.buffer.len(), self.buffer.capacity());
        // The buffer doubles when it grows.
        let wanted = if capacity - len < least { (2 * capacity).max(len + least) } else { capacity };
        let is_paid = self.pay(wanted);
        if is_paid && wanted > capacity {
            self.buffer.reserve(least);
            self.pay(self.buffer.capacity());
        } else if !is_paid && (len == capacity || !self.has_paid(capacity)) {
            self.lacks_memory = true;
            self.skip();
            self.buffer = BytesMut::with_capacity(least.min(FREE));
            self.pay(self.buffer.capacity());
        }
    }

    /// Whether a buffer of this capacity is charged: not where it was to another account.
    fn has_paid(&self, capacity: usize) -> bool {
        self.paid.as_ref().is_none_or(|(_, charge)| charge.bytes() >= capacity.saturating_sub(FREE))
    }

    /// Charges a buffer of this capacity. Returns whether the account has room for it.
    fn pay(&mut self, capacity: usize) -> bool {
        self.paid.as_mut().is_none_or(|(_, charge)| charge.resize(capacity.saturating_sub(FREE)).is_ok())
    }

    /// The next line in the buffer, without the blank lines before it. `None` if more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(offset) = memchr::memchr(b'\n', unsearched) else {
                self.searched = self.buffer.len();
                self.skip_if_oversized();
                return None;
            };
            let next = self.searched + offset + 1;
            self.searched = next;
            if let Some(frame) = self.take(next - 1, next) {
                return Some(frame);
            }
        }
    }

    /// The last line, to be called at the end of the stream. `None` if the stream ended with a line ending or a blank
    /// line.
    pub fn finish(&mut self) -> Option<Frame> {
        let end = self.buffer.len();
        self.take(end, end)
    }

    /// The number of bytes since the last call that led to no returned line: those of blank lines, each with [`BLANK`]
    /// added, and those of skipped lines, divided by [`SKIPPED`].
    pub fn take_waste(&mut self) -> usize {
        std::mem::take(&mut self.waste)
    }

    /// Takes the line that ends at offset `end` out of the buffer; the following line begins at `next`. `None` if the
    /// line is blank.
    fn take(&mut self, end: usize, next: usize) -> Option<Frame> {
        let whole = self.buffer.get(self.start..end).unwrap_or_default();
        let line = whole.strip_suffix(b"\r").unwrap_or(whole);
        let len = line.len();
        if self.skipped.is_some() || len > self.max_line {
            return Some(self.leave_out(end, next));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            self.waste += BLANK + next.saturating_sub(self.start);
            self.start = next;
            return None;
        }
        if len < SHORT || len < self.buffer.capacity() / 4 {
            let line = match self.paid.as_ref().filter(|_| len >= SHORT) {
                Some((account, _)) => account.copy(line).ok(),
                None => Some(Bytes::copy_from_slice(line)),
            };
            let Some(line) = line else {
                self.lacks_memory = true;
                return Some(self.leave_out(end, next));
            };
            self.start = next;
            return Some(Frame::Line(line));
        }
        let charge = self.paid.as_ref().map(|(account, _)| account.charge(FREE)).transpose();
        let Ok(charge) = charge else {
            self.lacks_memory = true;
            return Some(self.leave_out(end, next));
        };
        Some(Frame::Line(self.take_buffer(len, next, charge)))
    }

    /// Takes the line of `len` bytes at the beginning out with the buffer; the bytes from offset `next` on move to a
    /// new one. `charge` is that for [`FREE`] bytes of the buffer, where the framer is charged.
    fn take_buffer(&mut self, len: usize, next: usize, charge: Option<Charge>) -> Bytes {
        let rest = BytesMut::from(self.buffer.get(next..).unwrap_or_default());
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(self.start + len);
        line.advance(self.start);
        (self.start, self.searched) = (0, 0);
        match (charge, self.paid.as_mut()) {
            (Some(charge), Some((account, beyond))) => {
                let mut whole = std::mem::replace(beyond, account.open());
                whole.merge(charge);
                Account::freeze_under(whole, line)
            }
            _ => line.freeze(),
        }
    }

    /// Reports the line that ends at offset `end` instead of returning the line; the following line begins at `next`.
    fn leave_out(&mut self, end: usize, next: usize) -> Frame {
        let line = self.buffer.get(self.start..end).unwrap_or_default();
        let mut skimmer = self.skipped.take().unwrap_or_default();
        skimmer.feed(line);
        self.waste += line.len() / SKIPPED;
        self.start = next;
        let (bytes, lacks_memory) = (skimmer.bytes(), std::mem::take(&mut self.lacks_memory));
        Frame::Oversized(Oversized { bytes, messages: skimmer.finish(), lacks_memory })
    }

    /// Drops the bytes of an unfinished line above the limit, so that memory stays bounded.
    fn skip_if_oversized(&mut self) {
        let line = self.buffer.get(self.start..).unwrap_or_default();
        // The last byte may be a carriage return, which does not count.
        if self.skipped.is_some() || line.len() > self.max_line + 1 {
            self.skip();
        }
    }

    /// Drops the bytes of the unfinished line in the buffer, and skips the rest of the line when it comes.
    fn skip(&mut self) {
        let line = self.buffer.get(self.start..).unwrap_or_default();
        self.skipped.get_or_insert_default().feed(line);
        self.waste += line.len() / SKIPPED;
        self.buffer.clear();
        (self.start, self.searched) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, clippy::expect_used, reason = "tests")]
    use super::*;
    use crate::memory::Memory;
    use proptest::prelude::*;

    fn frames(chunks: &[&[u8]], max_line: usize) -> Vec<Frame> {
        let mut framer = Framer::new(max_line);
        let mut out = Vec::new();
        for chunk in chunks {
            framer.room(0).extend_from_slice(chunk);
            while let Some(frame) = framer.next_frame() {
                out.push(frame);
            }
            assert!(framer.buffer.len() - framer.start <= max_line + 1);
        }
        out.extend(framer.finish());
        out
    }

    fn oversized(bytes: usize) -> Frame {
        Frame::Oversized(Oversized { bytes, messages: Vec::new(), lacks_memory: false })
    }

    #[test]
    fn oversized_lines_are_skipped_and_the_stream_goes_on() {
        let long = [b'x'; 100];
        let got = frames(&[&long[..50], &long[50..], b"\r\nok\r\n\n \r\n", b"last"], 10);
        assert_eq!(got, [oversized(101), Frame::Line("ok".into()), Frame::Line("last".into())]);
    }

    #[test]
    fn a_line_of_just_the_limit_passes() {
        assert_eq!(
            frames(&[b"0123456789\r", b"\n01234567890\n"], 10),
            [Frame::Line("0123456789".into()), oversized(11)]
        );
    }

    #[test]
    fn an_oversized_line_says_whose_it_is_in_whatever_pieces_it_comes() {
        let text = format!("{{\"jsonrpc\":\"2.0\",\"result\":\"{}\",\"id\":7}}\nnext\n", "x".repeat(50));
        for size in [1, 3, 20, 200] {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let messages = vec![(Kind::Response, RawId::from(7))];
            let left_out = Oversized { bytes: text.len() - 6, messages, lacks_memory: false };
            let expected = [Frame::Oversized(left_out), Frame::Line("next".into())];
            assert_eq!(frames(&chunks, 20), expected, "{size}");
        }
    }

    #[test]
    fn a_line_keeps_little_more_than_itself_and_the_buffer_shrinks_again() {
        for len in [1, 100, SHORT - 1, SHORT, 3 * SHORT, LARGE, 20 * LARGE] {
            let mut framer = Framer::new(1 << 30);
            let line = vec![b'x'; len];
            let mut lines = Vec::new();
            for _ in 0..3 {
                framer.room(64 * 1024).extend_from_slice(&[b"a\n", line.as_slice(), b"\nb\n"].concat());
                lines.extend(std::iter::from_fn(|| framer.next_frame()));
            }
            framer.room(64 * 1024);
            assert!(framer.buffer.capacity() <= LARGE, "{len}: {}", framer.buffer.capacity());
            for frame in lines {
                let Frame::Line(line) = frame else { unreachable!("{frame:?}") };
                let len = line.len();
                // Whoever owns an allocation alone can have all of it back.
                let mut owned = line.try_into_mut().expect("the line shares its allocation");
                owned.clear();
                assert!(
                    !owned.try_reclaim(4 * len.max(SHORT) + 1),
                    "a line of {len} bytes keeps more than 4 times as much"
                );
            }
        }
    }

    #[test]
    fn blank_and_skipped_bytes_are_counted_as_waste() {
        let mut framer = Framer::new(1000);
        framer.room(0).extend_from_slice(&[&[b'\n'; 100][..], b"  \r\nline\n", &[b'x'; 6400], b"\n"].concat());
        while framer.next_frame().is_some() {}
        assert_eq!(framer.take_waste(), 101 * BLANK + 104 + 6400 / SKIPPED);
        assert_eq!(framer.take_waste(), 0);
    }

    #[test]
    fn a_line_that_the_account_has_no_room_for_is_skipped_and_the_stream_goes_on() {
        let memory = Memory::new(1024 * 1024);
        let account = memory.account("a");
        let mut framer = Framer::new(1 << 30);
        framer.charge_to(&account);
        let long = format!("{{\"jsonrpc\":\"2.0\",\"result\":\"{}\",\"id\":7}}\n", "x".repeat(800 * 1024));
        let mut got = Vec::new();
        let stream = [long.as_bytes(), b"next\n", &long.as_bytes()[600 * 1024..]].concat();
        let mut stream = &stream[..];
        while !stream.is_empty() {
            let room = framer.room(64 * 1024);
            assert!(room.capacity() > room.len());
            let (piece, rest) = stream.split_at((room.capacity() - room.len()).min(4000).min(stream.len()));
            room.extend_from_slice(piece);
            stream = rest;
            got.extend(std::iter::from_fn(|| framer.next_frame()));
            assert!(account.held() + FREE >= framer.buffer.capacity());
        }
        let left_out =
            Oversized { bytes: long.len() - 1, messages: vec![(Kind::Response, RawId::from(7))], lacks_memory: true };
        assert_eq!(got.remove(0), Frame::Oversized(left_out));
        assert_eq!(got.remove(0), Frame::Line("next".into()));
        assert!(matches!(&got[..], [Frame::Line(line)] if account.held() > line.len()), "{got:?}");
        drop((got, framer));
        assert_eq!(memory.held(), 0);
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
