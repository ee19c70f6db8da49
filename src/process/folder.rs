//! A private temporary folder that goes with its child. Invariant: it is removed when nobody holds it any more; and if
//! the gateway was killed before, by the next one on this machine.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};

use crate::config::Account;

/// What the names begin with.
const PREFIX: &str = "sluice-child-";

/// A folder that only its owner can enter. Dropping it removes it.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    /// Locked for as long as the gateway lives: what nobody locks has been left behind.
    _lock: File,
}

impl PrivateFolder {
    /// Makes one in `parent`, for an account or for the gateway's own user.
    ///
    /// # Errors
    /// It could not be made.
    pub fn make(parent: &Path, owner: Option<&Account>) -> io::Result<Self> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        // A child's path must not depend on where the gateway is.
        let path = std::path::absolute(parent)?.join(format!("{PREFIX}{name}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = open(&path).inspect_err(|_| drop(std::fs::remove_dir(&path)))?;
        let folder = Self { path, _lock: lock };
        rustix::fs::flock(&folder._lock, FlockOperation::NonBlockingLockExclusive)?;
        if let Some(owner) = owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(&folder._lock, Some(uid), Some(gid))?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "a private folder could not be removed");
        }
    }
}

/// Removes what gateways that were killed have left in `parent`. Says how many there were.
pub fn sweep(parent: &Path) -> usize {
    let own = rustix::process::geteuid();
    let Ok(entries) = std::fs::read_dir(parent) else { return 0 };
    let mut removed = 0;
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let Ok(lock) = open(&path) else { continue };
        let is_ours = own.is_root() || lock.metadata().is_ok_and(|found| found.uid() == own.as_raw());
        if is_ours
            && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
            && remove(&path).is_ok()
        {
            removed += 1;
        }
    }
    removed
}

/// Never follows a link that somebody put in its place.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            std::fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Gives back the rights that a child took from its own folders. Its processes are gone: nobody swaps a link in.
fn unlock(folder: &Path) -> io::Result<()> {
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn it_is_private_and_goes_with_its_holder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::make(parent.path(), None).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::create_dir(path.join("locked")).unwrap();
        std::fs::write(path.join("locked/file"), "x").unwrap();
        std::fs::set_permissions(path.join("locked"), Permissions::from_mode(0o0)).unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds() {
        let parent = tempfile::tempdir().unwrap();
        let held = PrivateFolder::make(parent.path(), None).unwrap();
        let left = parent.path().join(format!("{PREFIX}left"));
        let other = parent.path().join("other");
        std::fs::create_dir(&left).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, parent.path().join(format!("{PREFIX}link"))).unwrap();
        assert_eq!(sweep(parent.path()), 1);
        assert!(held.path().exists() && !left.exists() && other.exists());
    }
}
