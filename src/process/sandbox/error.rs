//! Why a sandbox could not be put in force.

use std::path::PathBuf;

/// Why a sandbox could not be put in force. The texts contain no secret.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The child has no access to a path that the configuration lists.
    #[error("the sandbox path {} cannot be opened: {error}; correct it, or let the server's user reach it", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The system refused a step.
    #[error("{step} was refused: {detail}")]
    Refused {
        /// The step.
        step: &'static str,
        /// The error of the system.
        detail: String,
    },
    /// The kernel lacks a part that is always needed.
    #[error("this kernel lacks {0}")]
    Lacking(&'static str),
    /// The kernel lacks a part that the configuration requires.
    #[error("this kernel lacks {0}; allow it to be missing (require_sandbox = false), or use a newer kernel")]
    Required(String),
}

impl SandboxError {
    /// The error for a refused `step`, made from the error of the system.
    pub(super) fn refused<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Refused { step, detail: error.to_string() }
    }
}

impl From<seccompiler::BackendError> for SandboxError {
    fn from(error: seccompiler::BackendError) -> Self {
        Self::refused("seccomp")(error)
    }
}
