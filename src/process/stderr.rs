//! Reads the stderr of a child: logs each line with its origin, and keeps the last lines for error messages. Leaves out
//! lines over 8 KiB and what exceeds a rate, so that a child cannot fill the disk or the memory of the gateway.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Duration, Instant};

use super::brake::Brake;
use crate::config::{ServerName, TenantId};
use crate::jsonrpc::{Frame, Framer};
use crate::telemetry::{DropReason, ServerMetrics};
use crate::text::visible_lines;

/// Longest line that is logged, in bytes. A longer one is replaced by a note about its length.
const MAX_LINE: usize = 8 * 1024;
/// Free space in the buffer before each read, in bytes.
const READ: usize = 16 * 1024;
/// Longest line that is kept for error messages, in characters.
const MAX_TAIL_LINE: usize = 512;
/// Most lines, and bytes, that are logged in one second.
const LINES_A_SECOND: u32 = 200;
const BYTES_A_SECOND: usize = 64 * 1024;

/// The server, tenant and session of a child, for log lines and limits. A spare has no tenant until a session adopts
/// it, and a child that all share never has one. Clones share their state.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Name of the configured server.
    pub server: ServerName,
    owner: Arc<Mutex<Owner>>,
}

#[derive(Debug, Clone)]
struct Owner {
    tenant: Option<TenantId>,
    session: Arc<str>,
}

/// Writes who pays for what the child writes: the tenant, or else the server.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner.lock().tenant {
            Some(tenant) => write!(f, "the tenant {tenant}"),
            None => write!(f, "the server {}", self.server),
        }
    }
}

impl Origin {
    /// The origin of a child that runs for the session `session` of `tenant`.
    pub fn new(tenant: &TenantId, server: &ServerName, session: &str) -> Self {
        let owner = Owner { tenant: Some(tenant.clone()), session: session.into() };
        Self { server: server.clone(), owner: Arc::new(Mutex::new(owner)) }
    }

    /// The origin of a child that runs for no session yet.
    pub fn unowned(server: &ServerName) -> Self {
        let owner = Owner { tenant: None, session: "-".into() };
        Self { server: server.clone(), owner: Arc::new(Mutex::new(owner)) }
    }

    /// Assigns the child to the session `session` of `tenant`.
    pub fn adopt(&self, tenant: &TenantId, session: &str) {
        *self.owner.lock() = Owner { tenant: Some(tenant.clone()), session: session.into() };
    }

    /// The tenant that the child runs for, if there is one.
    pub fn tenant(&self) -> Option<TenantId> {
        self.owner.lock().tenant.clone()
    }

    /// The tenant and the public part of the session id, as log lines show them; "-" for none.
    pub fn names(&self) -> (String, Arc<str>) {
        let owner = self.owner.lock();
        (owner.tenant.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string), Arc::clone(&owner.session))
    }
}

/// The last lines of a child's stderr. Clones share their state.
#[derive(Debug, Clone)]
pub struct StderrTail(Arc<Mutex<VecDeque<String>>>, usize);

impl StderrTail {
    /// Keeps at most `lines` lines, of 512 characters each.
    pub fn new(lines: usize) -> Self {
        Self(Arc::default(), lines)
    }

    /// The kept lines, the oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    fn push(&self, line: &str) {
        if self.1 == 0 {
            return;
        }
        let mut lines = self.0.lock();
        if lines.len() == self.1 {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(MAX_TAIL_LINE).collect());
    }
}

/// Counts what was logged in the present second.
struct Second {
    begin: Instant,
    lines: u32,
    bytes: usize,
}

impl Second {
    fn new() -> Self {
        Self { begin: Instant::now(), lines: 0, bytes: 0 }
    }

    /// Whether a line of `bytes` bytes may still be logged in this second; if so, counts it.
    fn admits(&mut self, bytes: usize) -> bool {
        if self.begin.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        let is_admitted = self.lines < LINES_A_SECOND && self.bytes + bytes <= BYTES_A_SECOND;
        if is_admitted {
            (self.lines, self.bytes) = (self.lines + 1, self.bytes + bytes);
        }
        is_admitted
    }
}

/// Reads stderr until its end, logs each line, and adds each line to `tail`. Lines beyond the rate are counted instead
/// of logged, and charged to `brake`, which slows the reading down.
pub async fn drain_stderr(
    mut stderr: pipe::Receiver,
    origin: Origin,
    tail: StderrTail,
    metrics: ServerMetrics,
    mut brake: Brake,
) {
    let mut framer = Framer::new(MAX_LINE);
    let (mut second, mut thinned) = (Second::new(), 0_u64);
    loop {
        let ended = matches!(stderr.read_buf(framer.room(READ)).await, Ok(0) | Err(_));
        while let Some(frame) = framer.next_frame().or_else(|| if ended { framer.finish() } else { None }) {
            let line = match &frame {
                Frame::Line(line) => clean(&String::from_utf8_lossy(line)),
                Frame::Oversized(line) => format!("(a line of {} bytes, left out)", line.bytes),
            };
            tail.push(&line);
            if !second.admits(line.len()) {
                thinned += 1;
                metrics.dropped(DropReason::StderrFlood);
                // It is looked at letter by letter.
                brake.waste_message(4 * line.len());
                brake.pause().await;
                continue;
            }
            log_thinned(&origin, std::mem::take(&mut thinned));
            log(&origin, &line);
        }
        if ended {
            return log_thinned(&origin, thinned);
        }
        brake.waste(framer.take_waste());
        brake.pause().await;
    }
}

fn log_thinned(origin: &Origin, lines: u64) {
    if lines > 0 {
        let most = format!("{LINES_A_SECOND}, or {} KiB, a second", BYTES_A_SECOND / 1024);
        log(origin, &format!("({lines} lines left out: more than {most})"));
    }
}

/// Replaces characters that could mislead a reader or a terminal by escapes, which take at most six times the space.
fn clean(line: &str) -> String {
    visible_lines(line.trim_end_matches('\r')).into_owned()
}

fn log(origin: &Origin, line: &str) {
    let (server, (tenant, session)) = (&origin.server, origin.names());
    tracing::info!(target: "sluice::child", %tenant, %server, %session, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_clean() {
        let tail = StderrTail::new(2);
        for line in ["one", "two\u{1b}[31m\u{200b}\r", &"x".repeat(2000)] {
            tail.push(&clean(line));
        }
        assert_eq!(tail.lines(), ["two\\u{1b}[31m\\u{200b}".to_owned(), "x".repeat(MAX_TAIL_LINE)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_has_room_for_so_many_lines_and_bytes() {
        let mut second = Second::new();
        assert_eq!((0..1000).filter(|_| second.admits(10)).count(), LINES_A_SECOND as usize);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..1000).filter(|_| second.admits(MAX_LINE)).count(), BYTES_A_SECOND / MAX_LINE);
        assert!(!second.admits(1), "there is room again in the next second");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(second.admits(MAX_LINE));
    }
}
