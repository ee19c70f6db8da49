//! Output for people and pipes: a reader that went away is no error, and text from elsewhere cannot take over a terminal.

use std::io::{IsTerminal as _, Write as _};

use crate::text::visible_lines;

/// Writes a line to stdout. A closed pipe is ignored: whoever read it has what he wanted. What would mislead its reader is
/// made visible: values of a configuration may be in it.
pub(super) fn line(text: &str) {
    put(&visible_lines(text));
}

fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Writes a line that somebody else wrote to stdout: as it is to a pipe, made visible to a terminal.
pub(super) fn foreign_line(text: &str) {
    if std::io::stdout().is_terminal() { line(text) } else { put(text) }
}

/// Writes a line to stderr, with the name of the program. What would mislead its reader is made visible.
pub(super) fn note(text: &str) {
    say(&format!("sluice: {text}"));
}

/// As [`note`], without the name. There is nobody to tell when that fails.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", visible_lines(text));
}

/// A line on stderr that is written over and over while something goes on.
#[derive(Debug)]
pub(super) struct ProgressLine {
    shown: bool,
}

impl ProgressLine {
    /// A line, if stderr is a terminal.
    pub(super) fn on_terminal() -> Option<Self> {
        std::io::stderr().is_terminal().then_some(Self { shown: false })
    }

    /// Shows `text` in place of what was there.
    pub(super) fn show(&mut self, text: &str) {
        let text: String = crate::text::visible(text).chars().take(100).collect();
        let mut out = std::io::stderr().lock();
        // Progress is a courtesy: a terminal that went away does not end the call.
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
        self.shown = true;
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[2K").and_then(|()| out.flush());
        }
    }
}
