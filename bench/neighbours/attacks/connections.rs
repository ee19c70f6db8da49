//! Connections of HTTP/1.1 that hold what they have and hardly do anything.

use std::io;
use std::time::Duration;

use crate::attacker::Hostile;
use crate::client::{Session, Wire};
use crate::configuration::MAX_CONNECTIONS;
use crate::http::Connection;

/// More than the gateway has at once.
const MANY: usize = MAX_CONNECTIONS + 64;
/// Between two drips on one connection.
const DRIP: Duration = Duration::from_millis(200);

/// Keeps many connections; each sends `begin`, and then `drip` again and again. One that ends is opened again.
fn drip(hostile: &Hostile, begin: &[u8], drip: &[u8]) {
    let who = hostile.who("hostile");
    let open = || {
        let mut connection = who.connect()?;
        connection.send(begin)?;
        io::Result::Ok(connection)
    };
    let mut connections: Vec<Option<Connection>> = (0..MANY).map(|_| None).collect();
    while !hostile.is_over() {
        for connection in &mut connections {
            if hostile.is_over() {
                return;
            }
            *connection = match connection.take() {
                Some(mut open) => open.send(drip).is_ok().then_some(open),
                None => open().ok(),
            };
        }
        hostile.ready();
        std::thread::sleep(DRIP);
    }
}

/// Bodies that are announced as large, and come byte by byte.
pub(super) fn drips_bodies(hostile: &Hostile) {
    let who = hostile.who("hostile");
    let head = who.head("POST", &who.path("/mcp"), 15 << 20, "");
    let begin = [head.as_bytes(), &[b' '; 64 * 1024]].concat();
    drip(hostile, &begin, b" ");
}

/// Headers that never end.
pub(super) fn drips_headers(hostile: &Hostile) {
    drip(hostile, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X-More: y\r\n");
}

/// Connections without a request.
pub(super) fn idles(hostile: &Hostile) {
    drip(hostile, b"", b"");
}

/// Streams with more on them than their clients read, which is nothing.
pub(super) fn reads_no_stream(hostile: &Hostile) {
    let open = |_| {
        let mut session = Session::open(&hostile.who("flood"), Wire::Sse, "")?;
        let (body, _) = session.call_body("flood", "{}");
        session.notify(&body)?;
        io::Result::Ok(session)
    };
    let sessions: Vec<Session> = (0..hostile.size(6, 12)).filter_map(|number| open(number).ok()).collect();
    hostile.hold(sessions);
}
