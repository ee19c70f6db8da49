//! The log levels of `logging/setLevel` and `notifications/message`.

/// The names of the log levels, the least severe first (RFC 5424).
pub const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// A log level. Less means less severe, and more messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(usize);

impl Level {
    /// The level with exactly this name; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        LEVELS.iter().position(|level| *level == text).map(Self)
    }

    /// The name of the level.
    pub fn as_str(self) -> &'static str {
        LEVELS.get(self.0).copied().unwrap_or("info")
    }
}
