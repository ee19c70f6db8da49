//! Private temporary folders of children. All are inside one folder of the gateway, which other users may pass through
//! but not list. Invariants: a private folder is removed when its last holder drops it, by a thread of its own
//! (`remover`); if the gateway was killed before that, its guardian or the next gateway on the machine removes the
//! folder (`abandoned`). Modes that a child has changed on the surrounding folders are restored before the next start.

mod abandoned;
mod removal;
mod remover;
mod usage;

use std::ffi::CString;
use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::pinned_folder::PinnedFolder;
use super::random_name::random_name;
use crate::config::Account;
pub(super) use abandoned::remove_abandoned;
use abandoned::{AbandonedFolders, MODE, PREFIX};
use removal::{enter, open, remove};
pub use remover::RemovalMetrics;
use remover::Remover;
pub(super) use usage::{FolderSize, Measurement};

/// Time limit for removals when the gateway stops. The next start of a gateway removes the rest.
const LAST: Duration = Duration::from_secs(2);

/// The place for the gateway's folder: the state directory if users of servers can reach it, otherwise the system's
/// temporary directory. A server that may write to `/tmp` should not see the folders of others, so `/tmp` is the second
/// choice.
pub(super) fn place(state_dir: Option<&Path>) -> PathBuf {
    let passes = |path: &Path| path.metadata().map_or(true, |found| found.mode() & 0o001 != 0);
    let path = state_dir.and_then(|path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok());
    path.filter(|path| path.ancestors().all(passes)).unwrap_or_else(std::env::temp_dir)
}

/// Makes private temporary folders.
#[derive(Debug)]
pub struct Folders {
    /// The folder in which this gateway's folder is made.
    pub(super) place: PathBuf,
    /// This gateway's folder; `None` until the first folder is made, and after the end.
    top: Mutex<Option<Arc<GatewayFolder>>>,
    remover: Remover,
}

/// The folder of this gateway. Dropping it has it removed.
#[derive(Debug)]
struct GatewayFolder {
    path: PathBuf,
    name: CString,
    /// Locked as long as the gateway lives. A folder without a lock is abandoned.
    folder: Arc<File>,
    /// The same folder, with the mode to restore.
    held: PinnedFolder,
    /// The folder around it.
    place: Arc<File>,
    /// All folders around it whose mode a child could change.
    around: Vec<PinnedFolder>,
    remover: Remover,
}

/// A folder that only its owner can enter. Dropping it has the folder removed in the background.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    name: CString,
    top: Arc<GatewayFolder>,
}

impl Folders {
    /// Makes folders for a gateway with the state directory `state_dir`. Nothing is made before the first folder is
    /// needed.
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self::counted(state_dir, RemovalMetrics::default())
    }

    /// As [`Folders::new`], and counts removals in `metrics`.
    pub fn counted(state_dir: Option<&Path>, metrics: RemovalMetrics) -> Self {
        Self { place: place(state_dir), top: Mutex::default(), remover: Remover::new(metrics) }
    }

    /// Has folders of killed gateways removed in the background.
    pub fn remove_abandoned(&self) {
        let mut abandoned = AbandonedFolders::of(&self.place);
        self.remover.push(self.place.clone(), move |deadline| abandoned.step(deadline));
    }

    /// Makes a private folder that belongs to `owner`, or to the gateway's user. First restores the modes of the
    /// surrounding folders.
    ///
    /// # Errors
    /// The folder could not be made.
    pub(super) fn make(&self, owner: Option<&Account>) -> io::Result<PrivateFolder> {
        let top = self.top()?;
        let name = random_name()?;
        let (path, name) = (top.path.join(&name), CString::new(name)?);
        rustix::fs::mkdirat(&*top.folder, &name, Mode::RWXU)?;
        let folder = PrivateFolder { path, name, top };
        if let Some(owner) = owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(open(&*folder.top.folder, &folder.name)?, Some(uid), Some(gid))?;
        }
        Ok(folder)
    }

    fn top(&self) -> io::Result<Arc<GatewayFolder>> {
        let mut top = self.top.lock();
        if let Some(top) = top.as_ref().filter(|top| top.restore_mode()) {
            return Ok(Arc::clone(top));
        }
        // It was removed, or moved.
        let new = Arc::new(GatewayFolder::make(&self.place, self.remover.clone())?);
        *top = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Gives up the gateway's folder and waits up to 2 seconds for removals, when the gateway stops. The next gateway
    /// removes the rest.
    pub(super) fn close(&self) {
        let top = self.top.lock().take();
        drop(top);
        if !self.remover.finish(LAST) {
            tracing::info!(
                "private folders are left in {}: the next start of a gateway removes them",
                self.place.display()
            );
        }
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.top.lock().take();
        self.remover.close();
    }
}

impl GatewayFolder {
    fn make(place: &Path, remover: Remover) -> io::Result<Self> {
        // A child's path must not depend on where the gateway is.
        let place = std::path::absolute(place)?;
        let around = PinnedFolder::chain(&place);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = Arc::new(File::from(rustix::fs::open(&place, flags, Mode::empty())?));
        loop {
            let name = format!("{PREFIX}{}", random_name()?);
            let (path, name) = (place.join(&name), CString::new(name)?);
            rustix::fs::mkdirat(&*folder, &name, Mode::RWXU)?;
            // Until the folder is locked, another gateway may take it for abandoned.
            let lock = match open(&*folder, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match lock.try_lock() {
                Ok(()) if path.exists() => {}
                Err(TryLockError::Error(error)) => return Err(error),
                _ => continue,
            }
            lock.set_permissions(Permissions::from_mode(MODE))?;
            let held = PinnedFolder::open(&*folder, &name, MODE)?;
            return Ok(Self { path, name, folder: Arc::new(lock), held, place: folder, around, remover });
        }
    }

    /// Restores the modes of this folder and those around it. `false` if the folder has been removed or moved.
    fn restore_mode(&self) -> bool {
        let around = self.around.iter().rev().chain([&self.held]);
        around.map(PinnedFolder::restore_mode).all(|done| done.is_ok()) && self.held.is_at(&self.path)
    }
}

impl PrivateFolder {
    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Measures the content of the folder, and files that the `processes` have removed and still hold open. Stops at a
    /// size above `most`, or when `is_over` returns true.
    ///
    /// # Errors
    /// The system refuses: the size is unknown then.
    pub(super) fn usage(
        &self,
        most: FolderSize,
        processes: &[i32],
        is_over: impl Fn() -> bool,
    ) -> io::Result<Measurement> {
        usage::measure(&enter(&*self.top.folder, &self.name)?, &self.path, most, processes, is_over)
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let (name, top) = (std::mem::take(&mut self.name), Arc::clone(&self.top));
        let step = move |deadline| remove(&top.folder, &name, deadline);
        self.top.remover.push(std::mem::take(&mut self.path), step);
    }
}

impl Drop for GatewayFolder {
    fn drop(&mut self) {
        let (place, name, lock) = (Arc::clone(&self.place), std::mem::take(&mut self.name), Arc::clone(&self.folder));
        let step = move |deadline| {
            // Held until the folder is gone: nobody else takes it for abandoned.
            let _lock = &lock;
            remove(&place, &name, deadline)
        };
        self.remover.push(std::mem::take(&mut self.path), step);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
    use std::os::unix::fs::symlink;
    use std::time::Instant;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Looks until something is so that another thread does, which tells nobody when it has.
    pub(super) fn eventually(what: &str, is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(30), "it did not happen: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A folder that every user may pass through.
    fn a_place() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        set_mode(place.path(), 0o755);
        place
    }

    #[test]
    fn it_is_private_and_goes_with_its_holder() {
        let place = a_place();
        let folders = Folders::new(Some(place.path()));
        let folder = folders.make(None).unwrap();
        let path = folder.path().to_owned();
        let top = path.parent().unwrap();
        assert_eq!((mode(&path), mode(top), top.parent()), (0o700, 0o711, Some(place.path())));
        std::fs::create_dir(path.join("locked")).unwrap();
        std::fs::write(path.join("locked/file"), "x").unwrap();
        set_mode(&path.join("locked"), 0);
        let other = folders.make(None).unwrap();
        assert_eq!(other.path().parent(), Some(top));
        drop(folder);
        eventually("it is removed", || !path.exists());
        assert!(other.path().exists());
        drop(folders);
        assert!(other.path().exists(), "its holder is still there");
        drop(other);
        eventually("the folder around it is removed", || !top.exists());
    }

    #[test]
    fn what_a_child_does_to_the_folders_around_its_own_is_put_right_before_the_next_start() {
        let outer = a_place();
        let place = outer.path().join("state");
        std::fs::create_dir(&place).unwrap();
        set_mode(&place, 0o711);
        let folders = Folders::new(Some(&place));
        let first = folders.make(None).unwrap();
        let top = first.path().parent().unwrap().to_owned();
        for path in [&top, &place, &outer.path().to_owned()] {
            set_mode(path, 0);
        }
        let second = folders.make(None).unwrap();
        assert_eq!([&top, &place, &outer.path().to_owned()].map(|path| mode(path)), [0o711, 0o711, 0o755]);
        assert_eq!(second.path().parent(), Some(&*top));
        // One that is moved away or removed is replaced.
        std::fs::rename(&top, place.join("moved")).unwrap();
        let third = folders.make(None).unwrap();
        assert!(third.path().is_dir() && third.path().parent() != Some(&*top));
        drop((first, second));
        eventually("what was moved is removed all the same", || {
            !place.join("moved").exists() || { std::fs::read_dir(place.join("moved")).unwrap().count() == 0 }
        });
    }

    #[test]
    fn a_folder_that_cannot_be_removed_is_counted_and_tried_again() {
        let place = a_place();
        let metrics = RemovalMetrics::default();
        let folders = Folders::counted(Some(place.path()), metrics.clone());
        let folder = folders.make(None).unwrap();
        let path = folder.path().to_owned();
        std::fs::create_dir(path.join("mounted")).unwrap();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let done = |program: &str, words: &[&str]| {
            std::process::Command::new(program).args(words).arg(path.join("mounted")).status().unwrap().success()
        };
        assert!(done("mount", &["-t", "tmpfs", "none"]));
        std::fs::write(path.join("mounted/file"), "x").unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        eventually("it is counted", || metrics.failures.get() > 0);
        assert_eq!((path.join("mounted/file").exists(), path.join("file").exists()), (true, false));
        // Others are removed meanwhile.
        let other = folders.make(None).unwrap().path().to_owned();
        eventually("another is removed", || !other.exists() && metrics.waiting.get() == 1);
        assert!(done("umount", &[]));
        eventually("it is removed", || !path.exists() && metrics.waiting.get() == 0);
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds_and_a_gateway_that_starts_meanwhile_makes_another() {
        let place = a_place();
        let folders = Folders::new(Some(place.path()));
        let held = folders.make(None).unwrap();
        let left = place.path().join(format!("{PREFIX}left"));
        let other = place.path().join("other");
        std::fs::create_dir_all(left.join("a")).unwrap();
        set_mode(&left, 0);
        std::fs::create_dir(&other).unwrap();
        symlink(&other, place.path().join(format!("{PREFIX}link"))).unwrap();
        assert_eq!(remove_abandoned(place.path()), 1);
        assert!(held.path().exists() && !left.exists() && other.exists());
        // Many at once: each would remove the folder of another that has not locked it yet.
        std::thread::scope(|scope| {
            let make = || {
                for _ in 0..200 {
                    remove_abandoned(place.path());
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
