//! Private temporary folders that go with their children. They are in one folder of the gateway's own, which others may pass
//! through, but not look into. Invariants: a private folder is removed when nobody holds it any more; and if the gateway
//! was killed before, by its guardian, or the next gateway on this machine.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Uid};

use crate::config::Account;

/// What the names of the gateways' folders begin with.
const PREFIX: &str = "sluice-tmp-";

/// Where private folders are to be: below the state directory, where there is one, or the system's temporary folder. A
/// server that may write to `/tmp` has no business with those of others; so `/tmp` is the second choice. The users of
/// servers have to get there.
pub(super) fn place(state_dir: Option<&Path>) -> PathBuf {
    let passes = |path: &Path| path.metadata().map_or(true, |found| found.mode() & 0o001 != 0);
    let path = state_dir.and_then(|path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok());
    path.filter(|path| path.ancestors().all(passes)).unwrap_or_else(std::env::temp_dir)
}

/// What makes private folders.
#[derive(Debug)]
pub struct Folders {
    place: PathBuf,
    top: Mutex<Option<Arc<Top>>>,
}

/// The gateway's folder. Dropping it removes it.
#[derive(Debug)]
struct Top {
    path: PathBuf,
    /// Locked for as long as the gateway lives: what nobody locks has been left behind.
    lock: File,
}

/// A folder that only its owner can enter. Dropping it removes it.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    _top: Arc<Top>,
}

impl Folders {
    /// Of a gateway with this state directory. Nothing is made before it is needed.
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self { place: place(state_dir), top: Mutex::default() }
    }

    /// Removes what gateways that were killed have left there.
    pub fn sweep(&self) {
        sweep(&self.place);
    }

    /// Where they are to be.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Makes one, for an account or for the gateway's own user.
    ///
    /// # Errors
    /// It could not be made.
    pub(super) fn make(&self, owner: Option<&Account>) -> io::Result<PrivateFolder> {
        let top = {
            let mut top = self.top.lock();
            match top.as_ref().filter(|top| top.path.is_dir()) {
                Some(top) => Arc::clone(top),
                None => Arc::clone(top.insert(Arc::new(Top::make(&self.place)?))),
            }
        };
        let path = top.path.join(random_name()?);
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = PrivateFolder { path, _top: top };
        if let Some(owner) = owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(open(&folder.path)?, Some(uid), Some(gid))?;
        }
        Ok(folder)
    }
}

impl Top {
    fn make(place: &Path) -> io::Result<Self> {
        loop {
            // A child's path must not depend on where the gateway is.
            let path = std::path::absolute(place)?.join(format!("{PREFIX}{}", random_name()?));
            DirBuilder::new().mode(0o700).create(&path)?;
            // Until it is locked, a sweep may take it for left behind.
            let lock = match open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if lock_now(&lock)? && path.exists() {
                let top = Self { path, lock };
                top.lock.set_permissions(Permissions::from_mode(0o711))?;
                return Ok(top);
            }
        }
    }
}

impl PrivateFolder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        remove_or_say(&self.path);
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        remove_or_say(&self.path);
    }
}

fn remove_or_say(path: &Path) {
    if let Err(error) = remove(path) {
        tracing::warn!(folder = %path.display(), %error, "a private folder could not be removed");
    }
}

fn random_name() -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes what gateways that were killed have left in a place. Says how many there were.
pub(super) fn sweep(place: &Path) -> usize {
    let own = rustix::process::geteuid();
    let Ok(entries) = std::fs::read_dir(place) else { return 0 };
    let mut removed = 0;
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let Ok(lock) = open(&path) else { continue };
        let is_ours = own.is_root() || lock.metadata().is_ok_and(|found| found.uid() == own.as_raw());
        if is_ours && lock_now(&lock).is_ok_and(|is_locked| is_locked) && remove(&path).is_ok() {
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

/// `false` if somebody else has locked it.
fn lock_now(folder: &File) -> io::Result<bool> {
    match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(&File::from(rustix::fs::openat(CWD, path, PATH_ONLY, Mode::empty())?))?;
            std::fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A folder, as itself, whatever rights there are to it. A link is none.
const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives back the rights that a child took from its own folders. No path is looked up twice: should something of the child
/// still run, a link that it swaps in leads nowhere.
fn unlock(folder: &File) -> io::Result<()> {
    // The descriptor is of the path only: that is changed by way of /proc, which leads to the folder itself.
    std::fs::set_permissions(format!("/proc/self/fd/{}", folder.as_raw_fd()), Permissions::from_mode(0o700))?;
    let list = rustix::fs::openat(folder, ".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&list)? {
        let entry = entry?;
        let is_itself = [c".", c".."].contains(&entry.file_name());
        if is_itself || ![FileType::Directory, FileType::Unknown].contains(&entry.file_type()) {
            continue;
        }
        match rustix::fs::openat(folder, entry.file_name(), PATH_ONLY, Mode::empty()) {
            Ok(below) => unlock(&File::from(below))?,
            // It is another thing by now, or gone.
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_private_and_goes_with_its_holder() {
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        let folders = Folders::new(Some(place.path()));
        let folder = folders.make(None).unwrap();
        let path = folder.path().to_owned();
        let top = path.parent().unwrap();
        assert_eq!((mode(&path), mode(top), top.parent()), (0o700, 0o711, Some(place.path())));
        std::fs::create_dir(path.join("locked")).unwrap();
        std::fs::write(path.join("locked/file"), "x").unwrap();
        std::fs::set_permissions(path.join("locked"), Permissions::from_mode(0o0)).unwrap();
        let other = folders.make(None).unwrap();
        assert_eq!(other.path().parent(), Some(top));
        drop(folder);
        assert!(!path.exists() && other.path().exists());
        drop(folders);
        assert!(other.path().exists(), "its holder is still there");
        drop(other);
        assert!(!top.exists());
    }

    #[test]
    fn rights_are_given_back_to_folders_only() {
        let place = tempfile::tempdir().unwrap();
        let (folder, outside) = (place.path().join("folder"), place.path().join("outside"));
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, folder.join("link")).unwrap();
        for path in [&outside, &folder.join("a/b"), &folder.join("a")] {
            std::fs::set_permissions(path, Permissions::from_mode(0o500)).unwrap();
        }
        unlock(&File::from(rustix::fs::openat(CWD, &folder, PATH_ONLY, Mode::empty()).unwrap())).unwrap();
        assert_eq!([&folder, &folder.join("a/b"), &outside].map(|path| mode(path)), [0o700, 0o700, 0o500]);
        assert!(rustix::fs::openat(CWD, folder.join("link"), PATH_ONLY, Mode::empty()).is_err());
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds_and_a_gateway_that_starts_meanwhile_makes_another() {
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        let folders = Folders::new(Some(place.path()));
        let held = folders.make(None).unwrap();
        let left = place.path().join(format!("{PREFIX}left"));
        let other = place.path().join("other");
        std::fs::create_dir_all(left.join("a")).unwrap();
        std::fs::create_dir(&other).unwrap();
        symlink(&other, place.path().join(format!("{PREFIX}link"))).unwrap();
        assert_eq!(sweep(place.path()), 1);
        assert!(held.path().exists() && !left.exists() && other.exists());
        // Many at once: each sweep would take the folder of another that has not locked it yet.
        std::thread::scope(|scope| {
            let make = || {
                for _ in 0..200 {
                    sweep(place.path());
                    let folders = Folders::new(Some(place.path()));
                    assert!(folders.make(None).unwrap().path().exists());
                }
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn they_are_in_the_state_directory_where_all_may_pass_through_it() {
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(place(Some(state.path())), std::env::temp_dir());
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o711)).unwrap();
        assert_eq!(place(Some(state.path())), state.path());
        assert_eq!(place(Some(&state.path().join("not/yet"))), state.path().join("not/yet"));
        assert_eq!(place(None), std::env::temp_dir());
    }
}
