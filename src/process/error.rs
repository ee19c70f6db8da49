//! Why a child could not be started.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use crate::config::Server;

/// Why a child could not be started. Clients see these texts: they name the command as configured, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program does not exist.
    #[error("the command \"{command}\" was not found{}", in_path(path))]
    NotFound {
        /// The command as configured.
        command: String,
        /// The `PATH` that was searched; `None` if the command contains a slash.
        path: Option<String>,
    },
    /// The program exists and is no executable file. Holds the command as configured.
    #[error("the command \"{0}\" is not an executable file; make it one (chmod +x), or name the program inside")]
    NotExecutable(String),
    /// The configured working directory does not exist.
    #[error("the working directory {} does not exist", .0.display())]
    NoDirectory(PathBuf),
    /// The private temporary folder of the child could not be made.
    #[error(
        "no private temporary folder could be made for it: {0}; see that the gateway can write to its state_dir, or else its TMPDIR (/tmp)"
    )]
    NoFolder(io::Error),
    /// The working directory of the child's owner could not be made below the configured workspace.
    #[error(
        "no working directory could be made for it below its workspace: {0}; see that the gateway can write to the folder that \
         is configured (workspace)"
    )]
    NoWorkspace(io::Error),
    /// The child's cgroup could not be made, entered, or given its limits.
    #[error("its cgroup cannot keep its limits: {0}; see that the gateway's cgroup is delegated to it")]
    NoCgroup(io::Error),
    /// The sandbox could not be put in force.
    #[error("the command \"{command}\" was not started: {why}")]
    Sandbox {
        /// The command as configured.
        command: String,
        /// Which part of the sandbox was missing or refused.
        why: String,
    },
    /// The file system did not answer in time whether the program exists.
    #[error(
        "whether the command \"{command}\" and its working directory are there could not be found out within {patience:?}: a \
         file system does not answer; see whether the one that they are on, or a folder of its PATH, is mounted over a network"
    )]
    NoAnswer {
        /// The command as configured.
        command: String,
        /// How long the gateway waited for an answer.
        patience: Duration,
    },
    /// The system refused another step of the start.
    #[error("the command \"{command}\" could not be started: {error}")]
    System {
        /// The command as configured.
        command: String,
        /// The error of the system.
        error: io::Error,
    },
}

impl SpawnError {
    /// The error for a server whose command leads to no program: "not executable" if there is a file, otherwise "not
    /// found".
    pub(super) fn no_program(server: &Server) -> Self {
        if server.file().is_some_and(|file| file.exists()) {
            return Self::NotExecutable(server.command.clone());
        }
        let path = server.env.get("PATH").map(|path| path.expose_secret().to_owned()).unwrap_or_default();
        let path = (!server.command.contains('/')).then_some(path);
        Self::NotFound { command: server.command.clone(), path }
    }
}

fn in_path(path: &Option<String>) -> String {
    let told =
        |path| format!(" in its PATH ({path}); give the full path of the program, or set PATH in the server's env");
    path.as_ref().map(told).unwrap_or_default()
}
