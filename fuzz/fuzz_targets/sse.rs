//! Server-Sent Events. The first byte of the input chooses the chunks.
//!
//! What the gateway's encoder writes, its client's reader gives back, message by message; the reader reads any stream
//! as the standard says, whatever the chunks; and it stops at what is above its limit.
#![no_main]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice::fuzzing::{ReadEvents, encode_message, read_events};
use sluice::stream::{KEEP_ALIVE, endpoint_event, retry_field};
use sluice_fuzz::chunks;

/// More than any input has.
const NO_LIMIT: usize = 1 << 30;
const LIMIT: usize = 40;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [seed, text @ ..] = input else { return };
    round_trip(*seed, text);
    assert_eq!(read_events(chunks(*seed, text), NO_LIMIT), expected(text));
    let (whole, parts) = (read_events([text], LIMIT), read_events(chunks(*seed, text), LIMIT));
    assert_eq!(whole, parts, "chunks matter");
    assert!(whole.events.iter().all(|(_, data)| data.len() <= LIMIT));
});

/// Each line of the text is a message.
fn round_trip(seed: u8, text: &[u8]) {
    let messages: Vec<_> = text.split(|byte| matches!(byte, b'\n' | b'\r')).collect();
    let mut stream = BytesMut::from(&endpoint_event("messages?sessionId=a")[..]);
    for message in &messages {
        encode_message(&mut stream, message);
        stream.extend_from_slice(&KEEP_ALIVE);
    }
    let retry = Duration::from_millis(text.len() as u64);
    stream.extend_from_slice(&retry_field(retry));
    let endpoint = ("endpoint".to_owned(), Bytes::from("messages?sessionId=a"));
    let messages = messages.iter().map(|message| ("message".to_owned(), Bytes::copy_from_slice(message)));
    let events = std::iter::once(endpoint).chain(messages).collect();
    let expected = ReadEvents { events, retry: Some(retry), ..ReadEvents::default() };
    assert_eq!(read_events(chunks(seed, &stream), NO_LIMIT), expected);
}

/// The events of a stream (HTML standard, section 9.2.6), read as a whole.
fn expected(text: &[u8]) -> ReadEvents {
    let (mut read, mut rest) = (ReadEvents::default(), text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
    let (mut name, mut data, mut id) = (String::new(), None::<Vec<u8>>, None);
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let (line, behind) = rest.split_at(end);
        rest = behind.strip_prefix(b"\r\n").unwrap_or(&behind[1..]);
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match field {
            b"" if line.is_empty() => {
                read.last_id = id.take().or(read.last_id);
                let name = std::mem::take(&mut name);
                let name = if name.is_empty() { "message".to_owned() } else { name };
                read.events.extend(data.take().map(|data| (name, Bytes::from(data))));
            }
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_owned()),
            },
            b"event" => name = text(),
            b"id" if !value.contains(&0) => id = Some(text()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                read.retry = text().parse().ok().map(Duration::from_millis).or(read.retry);
            }
            _ => {}
        }
    }
    // An empty id is none.
    read.last_id = read.last_id.filter(|id| !id.is_empty());
    read
}
