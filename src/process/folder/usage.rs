//! Measures a private folder: number and bytes of its files. Invariants: measuring stops as soon as the limit is
//! exceeded, takes bounded memory and descriptors, follows no symbolic link and enters no mount. Hidden content counts
//! too: folders closed by their mode, and files that were removed but are still open. Entries that the child moves or
//! closes meanwhile are tried again. Only a child that hides content on purpose outlasts the tries, and it is ended.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType};
use rustix::io::Errno;

use super::removal::{self, enter, is_dots, restore_access};

/// Deepest level of nested folders that is measured, which is also the most descriptors held. Deeper folders count as
/// too many files.
const MAX_DEPTH: usize = 64;
/// Most tries to measure an entry that the child moves or closes meanwhile.
const TRIES: u32 = 64;
/// Most descriptors of a process that are looked at.
const MAX_DESCRIPTORS: usize = 1 << 16;

/// A number of files and bytes: measured, or allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::process) struct FolderSize {
    /// Bytes that are allocated on the disk.
    pub(in crate::process) bytes: u64,
    /// Number of entries: files, folders and others.
    pub(in crate::process) files: u64,
}

impl FolderSize {
    fn is_over(self, most: Self) -> bool {
        self.bytes > most.bytes || self.files > most.files
    }

    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.files += 1;
    }
}

/// The result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum Measurement {
    /// The caller has stopped it.
    Stopped,
    /// The child moves or closes entries faster than they can be measured.
    Hidden,
    /// The measured size. Counting stops once the limit is exceeded, so a larger folder shows only that it is over the
    /// limit.
    Found(FolderSize),
}

/// Measures the folder `top`, whose path is `path`, and files in it that the `processes` have removed and still hold
/// open. Stops at a size above `most`, or when `is_over` returns true.
///
/// # Errors
/// The system refuses: the size is unknown then.
pub(super) fn measure(
    top: &OwnedFd,
    path: &Path,
    most: FolderSize,
    processes: &[i32],
    is_over: impl Fn() -> bool,
) -> io::Result<Measurement> {
    let measured = walk(top, most, &is_over)?;
    let Measurement::Found(mut size) = measured else { return Ok(measured) };
    let mut seen = HashSet::new();
    for pid in processes {
        if size.is_over(most) || is_over() {
            break;
        }
        // Who does not let itself be looked into is not counted.
        removed_by(*pid, path, &mut |inode, bytes| {
            if seen.insert(inode) {
                size.add(bytes);
            }
        });
    }
    Ok(Measurement::Found(size))
}

fn walk(top: &OwnedFd, most: FolderSize, is_over: impl Fn() -> bool) -> io::Result<Measurement> {
    const TOO_MANY: Measurement = Measurement::Found(FolderSize { bytes: 0, files: u64::MAX });
    let mut amount = FolderSize::default();
    let Some(list) = list(top)? else { return Ok(Measurement::Hidden) };
    let mut levels = vec![OpenFolder::new(list)];
    while let Some(level) = levels.last_mut() {
        if is_over() {
            return Ok(Measurement::Stopped);
        }
        let Some(entry) = level.list.read() else {
            if level.missed.is_empty() {
                levels.pop();
            } else if !level.begin_again() {
                return Ok(Measurement::Hidden);
            }
            continue;
        };
        let found = level.measure_entry(&entry?)?;
        if u64::try_from(level.missed.len()).unwrap_or(u64::MAX) > most.files {
            return Ok(TOO_MANY);
        }
        match found {
            Found::Nothing => {}
            Found::File(bytes) => amount.add(bytes),
            Found::Folder(bytes, list) => {
                amount.add(bytes);
                if levels.len() >= MAX_DEPTH {
                    return Ok(TOO_MANY);
                }
                levels.push(OpenFolder::new(list));
            }
            Found::Hidden => return Ok(Measurement::Hidden),
        }
        if amount.is_over(most) {
            break;
        }
    }
    Ok(Measurement::Found(amount))
}

/// A folder on the way down that is being measured. It is held open, so that a new path or mode does not interrupt the
/// measurement.
struct OpenFolder {
    list: Dir,
    /// Inodes that were listed and not found by their name. A name for the same inode in the next listing shows that
    /// the entry was moved, not removed.
    missed: HashSet<u64>,
    /// The missed inodes of the last listing: the only ones that are measured in a repeated listing.
    wanted: HashSet<u64>,
    tries: u32,
}

/// The kind of an entry.
enum Found {
    Nothing,
    File(u64),
    Folder(u64, Dir),
    Hidden,
}

impl OpenFolder {
    fn new(list: Dir) -> Self {
        Self { list, missed: HashSet::new(), wanted: HashSet::new(), tries: 0 }
    }

    /// Lists the folder again for missed inodes. `false` after [`TRIES`] times.
    fn begin_again(&mut self) -> bool {
        self.tries += 1;
        self.wanted = std::mem::take(&mut self.missed);
        self.list.rewind();
        self.tries <= TRIES
    }

    fn measure_entry(&mut self, entry: &DirEntry) -> io::Result<Found> {
        let name = entry.file_name();
        if is_dots(name) || (self.tries > 0 && !self.wanted.remove(&entry.ino())) {
            return Ok(Found::Nothing);
        }
        for _ in 0..TRIES {
            let found = match stat_entry(self.list.fd()?, name) {
                Ok((bytes, None)) => return Ok(Found::File(bytes)),
                Ok((bytes, Some(below))) => {
                    list(&below).map(|list| list.map_or(Found::Hidden, |list| Found::Folder(bytes, list)))
                }
                // The child has closed the folder since it was opened.
                Err(Errno::ACCESS) => {
                    reopen(self.list.fd()?)?;
                    continue;
                }
                Err(error) => Err(error.into()),
            };
            return found.or_else(|error| match Errno::from_io_error(&error) {
                // It is gone, or has another name, or is another thing by now.
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE | Errno::AGAIN) => {
                    self.missed.insert(entry.ino());
                    Ok(Found::Nothing)
                }
                _ => Err(error),
            });
        }
        Ok(Found::Hidden)
    }
}

/// The allocated bytes of an entry, and a descriptor if the entry is a folder of the same file system. The bytes of a
/// file with several names are divided among them.
fn stat_entry(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<(u64, Option<OwnedFd>)> {
    let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let bytes = u64::try_from(found.st_blocks).unwrap_or_default() * 512;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        // A file with several names is counted once in all.
        return Ok((bytes / widened(found.st_nlink).max(1), None));
    }
    match enter(folder, name) {
        Err(Errno::XDEV) => Ok((bytes, None)),
        entered => Ok((bytes, Some(entered?))),
    }
}

/// Widens a link count to 64 bits; its type depends on the architecture.
fn widened(count: impl Into<u64>) -> u64 {
    count.into()
}

/// Opens a folder for listing, even if the child has closed it by its mode. `None` if the child closes it again each
/// time.
fn list(folder: &OwnedFd) -> io::Result<Option<Dir>> {
    for _ in 0..TRIES {
        match removal::list(folder) {
            Err(Errno::ACCESS) => reopen(folder.as_fd())?,
            listed => return Ok(Some(listed?)),
        }
    }
    Ok(None)
}

/// Restores the owner's permissions on a folder.
///
/// # Errors
/// The folder belongs to another user, or the system refuses. Neither can be caused by a child.
fn reopen(folder: BorrowedFd<'_>) -> io::Result<()> {
    if rustix::fs::fstat(folder)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::ACCESS.into());
    }
    restore_access(folder)
}

/// Calls `found` with inode and bytes of each file that process `pid` holds open although it was removed from `folder`.
/// Not at all if the process cannot be examined. Looks at no more than [`MAX_DESCRIPTORS`] descriptors.
fn removed_by(pid: i32, folder: &Path, found: &mut impl FnMut(u64, u64)) {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
    for descriptor in descriptors.flatten().take(MAX_DESCRIPTORS) {
        // Only the link is read before it is known to lead here: another file system may not answer.
        let is_here = std::fs::read_link(descriptor.path())
            .is_ok_and(|link| link.starts_with(folder) && link.as_os_str().as_bytes().ends_with(b" (deleted)"));
        if let Some(file) = is_here.then(|| std::fs::metadata(descriptor.path()).ok()).flatten()
            && file.nlink() == 0
        {
            found(file.ino(), file.blocks() * 512);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::{Folders, PrivateFolder};
    use rustix::fs::{Mode, OFlags};

    use super::*;

    const MUCH: FolderSize = FolderSize { bytes: 1 << 40, files: 1 << 40 };

    fn a_folder() -> PrivateFolder {
        Folders::new(None).make(None).unwrap()
    }

    fn usage(folder: &PrivateFolder, most: FolderSize) -> FolderSize {
        let own = i32::try_from(std::process::id()).unwrap();
        match folder.usage(most, &[own], || false).unwrap() {
            Measurement::Found(amount) => amount,
            look => panic!("{look:?}"),
        }
    }

    #[test]
    fn files_and_their_bytes_are_counted_whatever_hides_them() {
        let folder = a_folder();
        assert_eq!(usage(&folder, MUCH), FolderSize::default());
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(at("a/b/file"), at("again")).unwrap();
        symlink("/usr", at("link")).unwrap();
        let removed = std::fs::File::create(at("removed")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&removed, &vec![1; 1 << 20], 0).unwrap();
        std::fs::remove_file(at("removed")).unwrap();
        let found = usage(&folder, MUCH);
        assert_eq!(found.files, 6);
        assert!((2 << 20..3 << 20).contains(&found.bytes), "{found:?}");
        std::fs::set_permissions(at("a"), Permissions::from_mode(0o0)).unwrap();
        assert_eq!(usage(&folder, MUCH), found);
    }

    #[test]
    fn a_look_ends_where_there_is_too_much() {
        let folder = a_folder();
        for number in 0..100 {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(usage(&folder, FolderSize { files: 10, ..MUCH }).files, 11);
        // Also where no path leads.
        let name = "n".repeat(255);
        let mut deep = enter(&*folder.top.folder, &folder.name).unwrap();
        let mut nest = |depth| {
            for _ in 0..depth {
                rustix::fs::mkdirat(&deep, &*name, Mode::RWXU).unwrap();
                deep = rustix::fs::openat(&deep, &*name, OFlags::PATH, Mode::empty()).unwrap();
            }
        };
        nest(MAX_DEPTH - 1);
        assert_eq!(usage(&folder, MUCH).files, 100 + 63);
        nest(1);
        assert_eq!(usage(&folder, MUCH).files, u64::MAX);
        assert_eq!(folder.usage(MUCH, &[], || true).unwrap(), Measurement::Stopped);
    }

    /// Measures many times while `again` runs in a loop, and checks that no measurement misses files.
    fn no_look_overlooks(folder: &PrivateFolder, files: u64, again: impl Fn(u64) + Sync) {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..).take_while(|_| !is_over.load(Ordering::Relaxed)).for_each(&again));
            let looks: Vec<_> = (0..200).map(|_| folder.usage(MUCH, &[], || false)).collect();
            is_over.store(true, Ordering::Relaxed);
            for look in looks {
                let look = look.unwrap();
                let is_seen = |found: FolderSize| found.files >= files;
                assert!(
                    look == Measurement::Hidden || matches!(look, Measurement::Found(found) if is_seen(found)),
                    "{look:?}"
                );
            }
        });
    }

    #[test]
    fn a_folder_that_is_renamed_again_and_again_is_counted() {
        let folder = a_folder();
        let at = |number: u64| folder.path().join(format!("a{number}"));
        std::fs::create_dir(at(0)).unwrap();
        for number in 0..50 {
            std::fs::write(at(0).join(number.to_string()), "").unwrap();
        }
        no_look_overlooks(&folder, 51, |number| std::fs::rename(at(number), at(number + 1)).unwrap());
    }

    #[test]
    fn a_file_that_is_renamed_again_and_again_is_counted() {
        let folder = a_folder();
        let at = |number: u64| folder.path().join(number.to_string());
        std::fs::write(at(0), "").unwrap();
        no_look_overlooks(&folder, 1, |number| std::fs::rename(at(number), at(number + 1)).unwrap());
    }

    #[test]
    fn a_folder_that_is_closed_again_and_again_is_counted() {
        let folder = a_folder();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::write(closed.join("file"), "").unwrap();
        let close = |_| std::fs::set_permissions(&closed, Permissions::from_mode(0o0)).unwrap();
        no_look_overlooks(&folder, 2, close);
    }

    #[test]
    fn a_child_that_makes_and_removes_files_hides_nothing() {
        let folder = a_folder();
        let is_over = AtomicBool::new(false);
        let work = |number: u64| {
            let path = folder.path().join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("file"), "").unwrap();
            std::fs::remove_dir_all(path).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..).take_while(|_| !is_over.load(Ordering::Relaxed)).for_each(&work));
            let looks: Vec<_> = (0..2000).map(|_| folder.usage(MUCH, &[], || false)).collect();
            is_over.store(true, Ordering::Relaxed);
            for look in looks {
                assert!(matches!(look.unwrap(), Measurement::Found(_)));
            }
        });
    }
}
