//! Why a sandbox could not be put in force.

use std::path::PathBuf;

/// Why a sandbox could not be put in force. The texts name no secret.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A path of the configuration cannot be opened by the child.
    #[error("the sandbox path {} cannot be opened: {error}; correct it, or let the server's user reach it", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The system refused a step.
    #[error("{step} was refused: {detail}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        detail: String,
    },
    /// A part without which nothing is started is not there.
    #[error("this kernel lacks {0}")]
    Lacking(&'static str),
    /// A part that the configuration requires is not there.
    #[error("this kernel lacks {0}; allow it to be missing (require_sandbox = false), or use a newer kernel")]
    Required(String),
}

impl SandboxError {
    pub(super) fn refused(step: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |error| Self::Refused { step, detail: error.to_string() }
    }
}
