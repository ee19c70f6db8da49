//! Why a child could not be started.

use std::io;
use std::path::PathBuf;

/// Why a child could not be started. The texts reach clients: they name the command as configured and no secret.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program is not there.
    #[error("the command \"{command}\" was not found{}", in_path(path))]
    NotFound {
        /// As configured.
        command: String,
        /// The `PATH` that was searched, for a bare name.
        path: Option<String>,
    },
    /// The working directory is not there.
    #[error("the working directory {} does not exist", .0.display())]
    NoDirectory(PathBuf),
    /// The system refused.
    #[error("the command \"{command}\" could not be started: {error}")]
    System {
        /// As configured.
        command: String,
        /// What the system said.
        error: io::Error,
    },
}

fn in_path(path: &Option<String>) -> String {
    match path {
        Some(path) => {
            format!(" in its PATH ({path}); give the full path of the program, or set PATH in the server's env")
        }
        None => String::new(),
    }
}
