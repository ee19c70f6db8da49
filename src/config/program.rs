//! Finds the program that a server's `command` names, in the `PATH` of the child.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::server::Server;

/// The command that stands for this program, wherever the program is installed.
pub const SELF: &str = "sluice";

/// The path under which this program can execute itself, in the same version even if the file has been replaced.
pub const RUNNING: &str = "/proc/self/exe";

impl Server {
    /// The program that `command` names: this program for [`SELF`]; the file, relative to `cwd`, for a command with a
    /// slash; otherwise the first executable with that name in the `PATH` of `env`. `None` if there is no such
    /// executable.
    pub fn program(&self) -> Option<PathBuf> {
        self.program_in(self.env.get("PATH").map(|path| path.expose_secret()).unwrap_or_default())
    }

    /// The file that a `command` with a slash names, relative to `cwd`. The file may be absent. `None` for other
    /// commands.
    pub fn file(&self) -> Option<PathBuf> {
        let path = Path::new(&self.command);
        let file = self.cwd.as_ref().map_or_else(|| path.to_owned(), |folder| folder.join(path));
        self.command.contains('/').then_some(file)
    }

    /// Like [`Server::program`], with this `PATH`.
    pub(super) fn program_in(&self, path: &str) -> Option<PathBuf> {
        if self.command == SELF {
            // A child is started by this program. Its path is better known to sandboxes and people, while it is there.
            let installed = std::env::current_exe().ok().filter(|path| is_executable(path));
            return Some(installed.unwrap_or_else(|| RUNNING.into()));
        }
        if let Some(file) = self.file() {
            return Some(file).filter(|path| is_executable(path));
        }
        let folder = self.cwd.as_deref().unwrap_or(Path::new("."));
        path.split(':').map(|entry| folder.join(entry).join(&self.command)).find(|path| is_executable(path))
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
