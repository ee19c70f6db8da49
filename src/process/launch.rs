//! What is executed for a child, worked out before anything is started.

use std::path::PathBuf;

use secrecy::SecretString;

use super::error::SpawnError;
use crate::config::Server;

/// A program with all that it is given. Its environment is this and nothing else.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The command as it is configured, for messages.
    pub command: String,
    /// The file to execute.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, SecretString)>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
}

impl Launch {
    /// What a server's configuration amounts to.
    ///
    /// # Errors
    /// The program or the working directory is not there.
    pub fn of(server: &Server) -> Result<Self, SpawnError> {
        if let Some(cwd) = server.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            return Err(SpawnError::NoDirectory(cwd.clone()));
        }
        Ok(Self {
            command: server.command.clone(),
            program: server.program().ok_or_else(|| SpawnError::no_program(server))?,
            args: server.args.clone(),
            env: server.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            cwd: server.cwd.clone(),
        })
    }
}
