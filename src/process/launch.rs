//! All that a child is started with, resolved from a server's configuration before anything is started.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use super::error::SpawnError;
use super::folder::{Folders, PrivateFolder};
use super::sandbox::{Policy, Reach};
use super::temp_mount::TempMount;
use super::workspace::{self, Owner};
use crate::config::{Resources, SandboxMode, Server, TempLimits, TenantId};

/// What to execute, and how. The child's environment is exactly `env`: nothing of the gateway's own.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The command as configured, for messages.
    pub command: String,
    /// The file to execute.
    pub program: PathBuf,
    /// The arguments of the program.
    pub args: Vec<String>,
    /// The whole environment of the program: names and values.
    pub env: Vec<(String, SecretString)>,
    /// The working directory. `None`: that of the gateway.
    pub cwd: Option<PathBuf>,
    /// The limits, user and sandbox of the program.
    pub policy: Policy,
    /// The private temporary folder. The folder is removed when the last holder drops this reference. `None` without a
    /// sandbox.
    pub folder: Option<Arc<PrivateFolder>>,
    /// The tenant that the child is started for; `None` for a spare or a child that all share.
    pub tenant: Option<TenantId>,
    /// Limits on memory, processors and processes.
    pub resources: Resources,
    /// Limits on the size and the number of files in the temporary folder.
    pub temp: TempLimits,
    /// The tmpfs that enforces the limits of the temporary folder. `None`: only the gateway watches the folder.
    pub mount: Option<TempMount>,
}

impl Launch {
    /// Resolves `server` for a start. `folders` makes the private temporary folder. `reach` keeps the opened paths of
    /// the first start for all later ones. If the server has a workspace, the child starts in the folder of `owner`
    /// there, which is made.
    ///
    /// # Errors
    /// The program or the working directory does not exist, or a folder could not be made.
    pub fn of(server: &Server, folders: &Folders, reach: &Reach, owner: &Owner) -> Result<Self, SpawnError> {
        if let Some(cwd) = server.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            return Err(SpawnError::NoDirectory(cwd.clone()));
        }
        let program = server.program().ok_or_else(|| SpawnError::no_program(server))?;
        let account = server.sandbox.account.as_ref();
        let workspace = server.workspace.as_ref().map(|base| workspace::prepare(base, owner, account));
        let workspace = workspace.transpose().map_err(SpawnError::NoWorkspace)?;
        let mut launch = Self {
            command: server.command.clone(),
            args: server.args.clone(),
            env: server.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            cwd: workspace.clone().or_else(|| server.cwd.clone()),
            resources: server.limits.resources.clone(),
            temp: server.limits.temp.clone(),
            program,
            ..Self::default()
        };
        if server.sandbox.mode != SandboxMode::None {
            launch.give_folder(server, folders).map_err(SpawnError::NoFolder)?;
        }
        let folder = launch.folder.as_ref().map(|folder| folder.path().to_owned());
        let own: Vec<_> = folder.into_iter().chain(workspace).collect();
        launch.policy = Policy::of(server, &launch.program, &own, reach);
        Ok(launch)
    }

    /// Makes the private temporary folder, sets `TMPDIR` to it, and decides whether it gets a tmpfs. A child without a
    /// `cwd` starts in this folder rather than in the gateway's working directory, so the path of the program becomes
    /// absolute.
    fn give_folder(&mut self, server: &Server, folders: &Folders) -> std::io::Result<()> {
        let folder = folders.make(server.sandbox.account.as_ref())?;
        self.program = std::path::absolute(&self.program)?;
        self.env.retain(|(name, _)| name != "TMPDIR");
        self.env.push(("TMPDIR".to_owned(), folder.path().to_string_lossy().into_owned().into()));
        self.cwd.get_or_insert_with(|| folder.path().to_owned());
        self.mount = TempMount::wanted(folder.path().to_owned(), &self.temp, server.sandbox.account.as_ref());
        self.folder = Some(Arc::new(folder));
        Ok(())
    }
}
