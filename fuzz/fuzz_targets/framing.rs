//! Lines of a stream. The first byte of the input chooses the longest line, the second the chunks; each byte 0 behind
//! them stands for 4 KiB of text.
//!
//! Lines and reports are those that a plain split at the line feeds gives, whatever the chunks; the reader's buffer and
//! each line hold little more than they have to; a skipped line names no message that reading all of it would not find.
#![no_main]

use sluice::jsonrpc::{Frame, Framer, parse};
use sluice_fuzz::chunks;

/// A buffer, or a line, may always have as much as this, in bytes.
const LARGE: usize = 256 * 1024;
const SHORT: usize = 16 * 1024;
/// About the longest stream, in bytes: longer ones only take longer.
const MOST: usize = 600_000;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [limit, seed, text @ ..] = input else { return };
    let max_line = [10, 64, 1000, 20_000, 300_000][usize::from(*limit) % 5];
    let mut bytes = Vec::new();
    for byte in text {
        match byte {
            _ if bytes.len() > MOST => break,
            0 => bytes.resize(bytes.len() + 4096, b'x'),
            byte => bytes.push(*byte),
        }
    }
    let whole = frames(&[&bytes], max_line);
    let parts = frames(&chunks(*seed, &bytes), max_line);
    assert_eq!(whole, parts, "chunks matter");
    compare(&whole, &bytes, max_line);
});

fn frames(chunks: &[&[u8]], max_line: usize) -> Vec<Frame> {
    let (mut framer, mut frames) = (Framer::new(max_line), Vec::new());
    let largest = chunks.iter().map(|chunk| chunk.len()).max().unwrap_or_default();
    for chunk in chunks {
        framer.room(0).extend_from_slice(chunk);
        frames.extend(std::iter::from_fn(|| framer.next_frame()));
        let buffer = framer.room(0);
        assert!(buffer.len() <= max_line + 1, "{} bytes of an unended line are kept", buffer.len());
        let most = LARGE.max(2 * (max_line + largest + 2));
        assert!(buffer.capacity() <= most, "the buffer has {} bytes of at most {most}", buffer.capacity());
    }
    frames.extend(framer.finish());
    for frame in &mut frames {
        if let Frame::Line(line) = frame {
            let (len, owned) = (line.len(), std::mem::take(line).try_into_mut());
            let mut owned = owned.unwrap_or_else(|_| panic!("a line of {len} bytes shares its memory"));
            // What the capacity does not show: bytes in front.
            let mut spare = owned.split_off(len);
            spare.clear();
            assert!(!spare.try_reclaim(4 * len.max(SHORT) + 1), "a line of {len} bytes keeps over four times as much");
            *line = owned.freeze();
        }
    }
    frames
}

fn compare(frames: &[Frame], bytes: &[u8], max_line: usize) {
    let mut frames = frames.iter();
    for whole in bytes.split(|byte| *byte == b'\n') {
        let line = whole.strip_suffix(b"\r").unwrap_or(whole);
        if line.len() > max_line {
            let Some(Frame::Oversized(report)) = frames.next() else { panic!("{} bytes are not reported", line.len()) };
            assert_eq!(report.bytes, whole.len());
            if let Ok(envelope) = parse(line)
                && let [(kind, id)] = report.messages.as_slice()
            {
                assert_eq!((*kind, Some(id.as_str())), (envelope.kind, envelope.id), "the line is another's");
            }
        } else if !line.iter().all(u8::is_ascii_whitespace) {
            assert!(matches!(frames.next(), Some(Frame::Line(got)) if got == line), "{line:?} is missing");
        }
    }
    assert_eq!(frames.next(), None);
}
