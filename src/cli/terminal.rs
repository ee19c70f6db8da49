//! Output to terminals and pipes. A closed pipe is not an error, and misleading characters of foreign text are escaped.

use std::io::{IsTerminal as _, Write as _};

use crate::text::visible_lines;

/// Writes a line to stdout, with misleading characters escaped. Ignores errors, such as a closed pipe.
pub(super) fn line(text: &str) {
    put(&visible_lines(text));
}

fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Writes a line of foreign text to stdout. On a terminal, misleading characters are escaped.
pub(super) fn foreign_line(text: &str) {
    if std::io::stdout().is_terminal() { line(text) } else { put(text) }
}

/// Writes a line to stderr after the name of the program, with misleading characters escaped.
pub(super) fn note(text: &str) {
    say(&format!("sluice: {text}"));
}

/// Like [`note`], without the name of the program.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", visible_lines(text));
}

/// A line on stderr that shows progress and is overwritten each time.
#[derive(Debug)]
pub(super) struct ProgressLine {
    shown: bool,
}

impl ProgressLine {
    /// A line that is not shown yet. `None` if stderr is not a terminal.
    pub(super) fn on_terminal() -> Option<Self> {
        std::io::stderr().is_terminal().then_some(Self { shown: false })
    }

    /// Shows the first 100 characters of a text in place of the one before.
    pub(super) fn show(&mut self, text: &str) {
        overwrite(&crate::text::visible(text).chars().take(100).collect::<String>());
        self.shown = true;
    }

    /// Clears the line if it is shown.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            overwrite("");
        }
    }
}

/// Replaces the current line on stderr.
fn overwrite(text: &str) {
    let mut out = std::io::stderr().lock();
    // Progress is a courtesy: a terminal that went away does not end the call.
    let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
}
