//! What is in a private folder: its files and their bytes. Invariants: a look ends as soon as there is more than may be, takes
//! memory within a bound, follows no link and leaves no mount; and what a child hides from it counts: folders that it has
//! closed, and files that it has removed and still has open.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::PrivateFolder;
use super::removal::{enter, grant};

/// The bytes of all paths that a look has still to go to.
const MAX_PENDING: usize = 16 << 20;
/// The descriptors of a process that are looked at.
const MAX_DESCRIPTORS: usize = 1 << 16;

/// How much there is, or may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::process) struct Amount {
    /// As the disk has them.
    pub(in crate::process) bytes: u64,
    /// Files, folders and all else that has a name.
    pub(in crate::process) files: u64,
}

impl Amount {
    fn is_over(self, most: Self) -> bool {
        self.bytes > most.bytes || self.files > most.files
    }

    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.files += 1;
    }
}

impl PrivateFolder {
    /// What is in it, counted up to `most`; with what `processes` have open and removed. `None` if it was told to stop.
    ///
    /// # Errors
    /// The system refuses: then nothing is known.
    pub(in crate::process) fn usage(
        &self,
        most: Amount,
        processes: &[i32],
        is_over: impl Fn() -> bool,
    ) -> io::Result<Option<Amount>> {
        let top = enter(&*self.top.folder, &self.name)?;
        let Some(mut amount) = measure(&top, most, &is_over)? else { return Ok(None) };
        let mut seen = HashSet::new();
        for pid in processes {
            if amount.is_over(most) || is_over() {
                break;
            }
            // Who does not let itself be looked into is not counted.
            removed_by(*pid, &self.path, &mut |inode, bytes| {
                if seen.insert(inode) {
                    amount.add(bytes);
                }
            });
        }
        Ok(Some(amount))
    }
}

fn measure(top: &OwnedFd, most: Amount, is_over: impl Fn() -> bool) -> io::Result<Option<Amount>> {
    const TOO_MANY: Amount = Amount { bytes: 0, files: u64::MAX };
    let (mut amount, mut pending, mut length) = (Amount::default(), vec![b".".to_vec()], 1);
    while let Some(path) = pending.pop() {
        length -= path.len();
        let folder = match open(top, &path) {
            Ok(folder) => folder,
            // So deep that no path leads there.
            Err(Errno::NAMETOOLONG) => return Ok(Some(TOO_MANY)),
            // It is gone, or another thing, or another file system.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut list = Dir::new(folder.try_clone()?)?;
        while let Some(entry) = list.read() {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            if is_over() {
                return Ok(None);
            }
            let Ok(found) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            // A file with several names is counted once in all.
            let names = if is_folder { 1 } else { wide(found.st_nlink).max(1) };
            amount.add(u64::try_from(found.st_blocks).unwrap_or_default() * 512 / names);
            if amount.is_over(most) {
                return Ok(Some(amount));
            }
            if is_folder {
                let below = [&path, b"/".as_slice(), name.to_bytes()].concat();
                length += below.len();
                if length > MAX_PENDING {
                    return Ok(Some(TOO_MANY));
                }
                pending.push(below);
            }
        }
    }
    Ok(Some(amount))
}

/// As wide as all counts here. How wide it is, depends on the machine.
fn wide(count: impl Into<u64>) -> u64 {
    count.into()
}

/// Opens a folder below, also one that the child has closed.
fn open(top: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags| match rustix::fs::openat2(top, path, flags, Mode::empty(), inside) {
        // Before Linux 5.6, or where a container's engine does not know it.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(top, path, flags, Mode::empty()),
        opened => opened,
    };
    match open(flags) {
        Err(Errno::ACCESS) => {
            let closed = open(OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
            grant(&closed).map_err(|_| Errno::ACCESS)?;
            open(flags)
        }
        opened => opened,
    }
}

/// Finds what a process has open of a folder though it has no name any more.
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
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::super::Folders;
    use super::*;

    const MUCH: Amount = Amount { bytes: 1 << 40, files: 1 << 40 };

    fn a_folder() -> PrivateFolder {
        Folders::new(None).make(None).unwrap()
    }

    fn usage(folder: &PrivateFolder, most: Amount) -> Amount {
        let own = i32::try_from(std::process::id()).unwrap();
        folder.usage(most, &[own], || false).unwrap().unwrap()
    }

    #[test]
    fn files_and_their_bytes_are_counted_whatever_hides_them() {
        let folder = a_folder();
        assert_eq!(usage(&folder, MUCH), Amount::default());
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
        std::fs::set_permissions(at("a"), std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
        assert_eq!(usage(&folder, MUCH), found);
    }

    #[test]
    fn a_look_ends_where_there_is_too_much() {
        let folder = a_folder();
        for number in 0..100 {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(usage(&folder, Amount { files: 10, ..MUCH }).files, 11);
        // Beyond every path.
        let name = "n".repeat(255);
        let mut deep = enter(&*folder.top.folder, &folder.name).unwrap();
        for _ in 0..20 {
            rustix::fs::mkdirat(&deep, &*name, Mode::RWXU).unwrap();
            deep = rustix::fs::openat(&deep, &*name, OFlags::PATH, Mode::empty()).unwrap();
        }
        assert_eq!(usage(&folder, MUCH).files, u64::MAX);
        assert_eq!(folder.usage(MUCH, &[], || true).unwrap(), None);
    }
}
