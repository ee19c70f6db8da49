//! What can go wrong in the built-in server, in words for the one who called the tool.

/// What failed in the built-in server, and why, as text.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Error {
    /// The path, program, request or step that failed.
    what: String,
    /// The reason: a refusal with its remedy, or the error of the system.
    why: String,
}

impl Error {
    /// A refusal of `what`, because of `why`.
    pub(super) fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }

    /// A failed system call on `what`.
    pub(super) fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::refused(what, source.into().to_string())
    }
}
