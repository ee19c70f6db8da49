//! Output for people and pipes: a reader that went away is no error, and text from elsewhere cannot take over a terminal.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

/// Writes a line to stdout. A closed pipe is ignored: whoever read it has what he wanted.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Writes a line that somebody else wrote to stdout: as it is to a pipe, without control characters to a terminal.
pub(super) fn foreign_line(text: &str) {
    if std::io::stdout().is_terminal() { line(&tame(text)) } else { line(text) }
}

/// Writes a line to stderr, with the name of the program. Control characters in it are made visible.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sluice: {}", tame(text));
}

/// Replaces what a terminal would act on (C0 and C1 control characters, except tabs and line feeds).
fn tame(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c.is_control() && c != '\t' && c != '\n';
    if text.contains(acts) { text.replace(acts, "\u{fffd}").into() } else { text.into() }
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
        let text: String = tame(text).chars().filter(|c| *c != '\n').take(100).collect();
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

#[cfg(test)]
mod tests {
    use super::tame;

    #[test]
    fn a_terminal_is_not_taken_over() {
        assert_eq!(tame("a\x1b[2Jb\u{9b}c\r\n\td"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\n\td");
        assert_eq!(tame("plain ✓"), "plain ✓");
    }
}
