//! What is executed for a child, worked out before anything is started.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use super::error::SpawnError;
use super::folder::{Folders, PrivateFolder};
use super::sandbox::{Policy, Reach};
use super::temp_mount::TempMount;
use super::workspace::{self, Owner};
use crate::config::{Resources, SandboxMode, Server, TempLimits, TenantId};

/// A program with all that it is given. Its environment is this and nothing else.
#[derive(Debug, Clone, Default)]
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
    /// What it is kept from.
    pub policy: Policy,
    /// Its private temporary folder, for as long as anybody holds this.
    pub folder: Option<Arc<PrivateFolder>>,
    /// The tenant that it is started for, if for one.
    pub tenant: Option<TenantId>,
    /// What it may use of the machine.
    pub resources: Resources,
    /// What it may put into its folder.
    pub temp: TempLimits,
    /// What keeps that, where the gateway does not have to watch it.
    pub mount: Option<TempMount>,
}

impl Launch {
    /// What a server's configuration amounts to where it is started once; `folders` makes its private one.
    ///
    /// # Errors
    /// As [`Launch::again`].
    pub fn of(server: &Server, folders: &Folders) -> Result<Self, SpawnError> {
        Self::again(server, folders, &Reach::default(), &Owner::everybody())
    }

    /// The same where it may have been started before, and what was opened to it then is in `reach`. Where it has working
    /// directories, this is whose it gets.
    ///
    /// # Errors
    /// The program or the working directory is not there, or a folder could not be made.
    pub fn again(server: &Server, folders: &Folders, reach: &Reach, owner: &Owner) -> Result<Self, SpawnError> {
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
            policy: Policy::default(),
            folder: None,
            tenant: None,
            resources: server.limits.resources.clone(),
            temp: server.limits.temp.clone(),
            mount: None,
            program,
        };
        if server.sandbox.mode != SandboxMode::None {
            launch.give_folder(server, folders).map_err(SpawnError::NoFolder)?;
        }
        let folder = launch.folder.as_ref().map(|folder| folder.path().to_owned());
        let own: Vec<_> = folder.into_iter().chain(workspace).collect();
        launch.policy = Policy::of(server, &launch.program, &own, reach);
        Ok(launch)
    }

    /// Gives the child a private folder. It is where a child without a `cwd` starts: what is in the gateway's working
    /// directory is none of its business.
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
