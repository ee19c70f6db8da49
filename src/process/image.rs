//! The executable that guardian and stages run: a sealed copy of the gateway's own binary in memory, made when the
//! gateway starts. Invariant: no server can change the copy or keep it from being executed. With the binary's file, a
//! server of the same user could do so by changing the file's mode.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::config::RUNNING;

/// An executable file. A program in memory exists as long as this value.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// The memory file that `path` leads to; `None` for a file on disk.
    _copy: Option<OwnedFd>,
}

impl Program {
    /// The binary that is running: as a sealed copy in memory, or as its file on disk where the system forbids
    /// executing from memory.
    pub fn running() -> Self {
        match copy() {
            Ok(copy) => Self { path: format!("/proc/self/fd/{}", copy.as_raw_fd()).into(), _copy: Some(copy) },
            Err(error) => {
                tracing::warn!(
                    %error,
                    "this system executes no program from memory (vm.memfd_noexec, see memfd_create(2)): the gateway starts \
                     servers by way of its file, and whoever may change the mode of that can stop all starts"
                );
                Self::from(PathBuf::from(RUNNING))
            }
        }
    }

    /// The path to execute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<PathBuf> for Program {
    fn from(path: PathBuf) -> Self {
        Self { path, _copy: None }
    }
}

fn copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 every such file can be executed, and there is no word for it.
    let file = rustix::fs::memfd_create(c"sluice", flags | MemfdFlags::EXEC).or_else(|error| match error {
        Errno::INVAL => rustix::fs::memfd_create(c"sluice", flags),
        error => Err(error),
    })?;
    let mut file = File::from(file);
    io::copy(&mut File::open(RUNNING)?, &mut file)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // Since Linux 6.3 its mode can be sealed too.
    rustix::fs::fcntl_add_seals(&file, seals | SealFlags::EXEC).or_else(|error| match error {
        Errno::INVAL => rustix::fs::fcntl_add_seals(&file, seals),
        error => Err(error),
    })?;
    // What is open for writing is not executed.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether this process was executed from a sealed copy in memory.
pub(super) fn runs_from_memory() -> bool {
    std::fs::read_link(RUNNING).is_ok_and(|path| path.starts_with("/memfd:sluice (deleted)"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_copy_runs_and_cannot_be_changed_nor_closed() {
        let program = Program::running();
        let copy = program._copy.as_ref().unwrap();
        assert_eq!(std::fs::read(program.path()).unwrap(), std::fs::read(RUNNING).unwrap());
        let written =
            std::fs::OpenOptions::new().write(true).open(program.path()).and_then(|mut file| file.write_all(b"x"));
        assert!(written.is_err());
        let seals = rustix::fs::fcntl_get_seals(copy).unwrap();
        assert!(seals.contains(SealFlags::WRITE | SealFlags::SEAL));
        if seals.contains(SealFlags::EXEC) {
            assert!(std::fs::set_permissions(program.path(), std::fs::Permissions::from_mode(0o0)).is_err());
        }
        let mut listed = std::process::Command::new(program.path());
        assert!(listed.arg("--list").stdout(std::process::Stdio::null()).status().unwrap().success());
    }
}
