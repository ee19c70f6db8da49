//! Output for people and pipes: a reader that went away is no error.

use std::io::Write as _;

/// Writes a line to stdout. A closed pipe is ignored: whoever read it has what he wanted.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}
