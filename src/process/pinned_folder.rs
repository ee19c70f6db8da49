//! Folders that the gateway depends on, each held open by a descriptor. A server that runs as the gateway's user can
//! change the mode of these folders. Invariant: the mode is restored before the folder is used again, on the folder
//! itself and not on whatever has been put at its path.

use std::ffi::CStr;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// Flags to open a folder as a mere location. That needs no permission on the folder, and its mode can be changed
/// through /proc.
pub(super) const PATH_ONLY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder and the mode that it is to have.
#[derive(Debug)]
pub(super) struct PinnedFolder {
    folder: OwnedFd,
    mode: u32,
}

impl PinnedFolder {
    /// Opens the folder `name` in `parent`; `mode` is the mode to restore.
    pub(super) fn open(parent: impl AsFd, name: &CStr, mode: u32) -> io::Result<Self> {
        Ok(Self { folder: rustix::fs::openat(parent, name, PATH_ONLY, Mode::empty())?, mode })
    }

    /// Opens the folder at `path`; the mode to restore is its present one.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::openat(CWD, path, PATH_ONLY, Mode::empty())?;
        let mode = rustix::fs::fstat(&folder)?.st_mode & 0o7777;
        Ok(Self { folder, mode })
    }

    /// Opens the folder at `path` and the folders around it, as far as they belong to the gateway's user. The innermost
    /// comes first.
    pub(super) fn chain(path: &Path) -> Vec<Self> {
        let own = rustix::process::geteuid().as_raw();
        let held = path.ancestors().filter_map(|path| Self::at(path).ok());
        held.filter(|held| rustix::fs::fstat(&held.folder).is_ok_and(|found| found.st_uid == own)).collect()
    }

    /// Restores the mode if the folder has lost permissions that the gateway or its children need. Added permissions
    /// remain.
    ///
    /// # Errors
    /// The folder no longer belongs to this user.
    pub(super) fn restore_mode(&self) -> io::Result<()> {
        let found = rustix::fs::fstat(&self.folder)?.st_mode & 0o7777;
        // Those that the gateway needs, and those that children need to get through.
        let needed = self.mode & 0o711;
        if found & needed == needed {
            return Ok(());
        }
        set_mode(&self.folder, self.mode)
    }

    /// Whether the folder is the one at `path`.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let (Ok(own), Ok(there)) = (rustix::fs::fstat(&self.folder), path.symlink_metadata()) else { return false };
        (own.st_dev, own.st_ino) == (there.dev(), there.ino())
    }
}

/// Sets the mode of an open folder. A descriptor opened with [`PATH_ONLY`] takes no `fchmod`; its entry in /proc leads
/// to the folder.
pub(super) fn set_mode(folder: impl AsFd, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn rights_that_were_taken_come_back_to_the_folder_itself() {
        let place = tempfile::tempdir().unwrap();
        let (path, moved) = (place.path().join("a"), place.path().join("b"));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o711)).unwrap();
        let held = PinnedFolder::at(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o0)).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        held.restore_mode().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!((mode(&moved), mode(&path)), (0o711, 0o700));
        assert!(held.is_at(&moved) && !held.is_at(&path));
        // What an operator has added stays.
        std::fs::set_permissions(&moved, Permissions::from_mode(0o755)).unwrap();
        held.restore_mode().unwrap();
        assert_eq!(mode(&moved), 0o755);
    }
}
