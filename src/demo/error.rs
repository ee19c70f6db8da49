//! What can go wrong in the built-in server, in words for the one who called the tool.

/// An error of the built-in server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path, a program or a request that is not allowed, or not there.
    #[error("{what}: {why}")]
    Refused {
        /// What was asked for, as it was given.
        what: String,
        /// Why it is not done, and what would be.
        why: String,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl Error {
    /// A refusal of `what`, because of `why`.
    pub(super) fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), why: why.into() }
    }

    /// A failed system call on `what`.
    pub(super) fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}
